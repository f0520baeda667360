"""What can go wrong with the places things live in, as one tree.

    ResourceError
    ├── StoreError                  the artifact store
    │   ├── StoreAddressError         the URI, the bucket or a name in it cannot be right
    │   ├── StoreUnreachableError     the endpoint gives no answer
    │   ├── StoreAccessError          credentials or permissions are missing or refused
    │   ├── ObjectChangedError        an object is not the version that was asked for any more
    │   ├── StoreLockedError          another process holds a lock for too long
    │   ├── UnsafeStoreError          the store ignores conditional writes
    │   ├── StoreFailureError         any other failure underneath: disk full, server error
    │   │   └── StoreInterruptedError   the server fails, breaks off or is too slow, again and again
    │   ├── AttemptError              an attempt used wrongly, or removed by gc too soon
    │   │   └── SecretFoundError        a manifest or ref would hold a secret
    │   ├── UnfinishedReadError       (also an OSError) what a dead attempt left cannot be read
    │   ├── ContentConflictError      other contents are published under the same digest
    │   ├── MissingArtifactError      nothing is published under that kind and digest
    │   ├── WithdrawnError            an artifact rests on something withdrawn, and stays here
    │   ├── VirtualArtifactError      an artifact that is planned, not written, has no files to read
    │   └── DamagedArtifactError      a published file or manifest is missing or has wrong bytes
    │       ├── ArtifactReadError       (also an OSError) a range could not be read exactly
    │       └── LaterReleaseError       a manifest or ref of a format that this release cannot read
    ├── ModelSourceError            where upstream models come from
    │   ├── UnknownSchemeError        a URI scheme no source understands
    │   ├── MissingSourceError        nothing there
    │   ├── UnsafeWeightsError        weights only as pickles that are not converted
    │   └── SourceChangedError        the files changed while they were read
    ├── RequestFailedError          a server gives no answer, or one with an error, at the last try
    ├── OutboundError             a model could not leave: a hub refuses it, or a name is none
    ├── EndpointError               a judge's endpoint does not answer, or not as it should
    └── ComputeError                GPUs that cannot be had

Every message says where, what was given, what is allowed and what to do, and never holds a secret.
Catch by type; the text is for people and may change.
"""


class ResourceError(Exception):
    """Root of everything this package raises on purpose."""


class StoreError(ResourceError):
    """Something about the artifact store."""


class StoreAddressError(StoreError):
    """The store's URI, its bucket, or a name used in it cannot be right."""


class StoreUnreachableError(StoreError):
    """The store's endpoint gives no answer in time."""


class StoreAccessError(StoreError):
    """Credentials or permissions are missing, or were refused."""


class ObjectChangedError(StoreError):
    """An object is not the version that was asked for any more."""


class StoreLockedError(StoreError):
    """A lock that is held for moments only is held by a process that does not let it go."""


class UnsafeStoreError(StoreError):
    """The store ignores conditional writes, so two writers could overwrite each other."""


class StoreFailureError(StoreError):
    """Another failure underneath: a full disk, a server error."""


class StoreInterruptedError(StoreFailureError):
    """The store's server fails, breaks off or is too slow, again and again."""


NO_ANSWER = (StoreUnreachableError, StoreInterruptedError, StoreAccessError)
"""What says nothing of the bytes that were asked for: they may be right, and stay."""


def no_answer(error: BaseException) -> StoreError | None:
    """Return why a place gave no bytes, the error or its cause; None where it gave some."""
    for each in (error, error.__cause__):
        if isinstance(each, NO_ANSWER):
            return each
    return None


class AttemptError(StoreError):
    """An attempt was used wrongly, or gc removed it before it was published."""


class SecretFoundError(AttemptError):
    """A manifest or ref would have held a secret; nothing was written."""


class UnfinishedReadError(StoreError, OSError):
    """What a dead attempt left is not there any more, or has other bytes than were checked."""


class ContentConflictError(StoreError):
    """Other contents are already published under the same kind and digest."""


class MissingArtifactError(StoreError):
    """Nothing is published under that kind and digest."""


class WithdrawnError(StoreError):
    """An artifact rests on something that was withdrawn, so that it is not used or sent away."""


class VirtualArtifactError(StoreError):
    """The artifact is virtual: its manifest says how its files are made, and none is written."""


class DamagedArtifactError(StoreError):
    """A published file or manifest is missing, or its bytes are not the ones published."""


class ArtifactReadError(DamagedArtifactError, OSError):
    """A range of an artifact's file could not be read exactly."""


class LaterReleaseError(DamagedArtifactError):
    """A manifest or ref has a later format; nothing is wrong with it, this release is too old."""


class ModelSourceError(ResourceError):
    """Something about the place an upstream model comes from."""


class UnknownSchemeError(ModelSourceError):
    """A URI scheme that no model source understands."""


class MissingSourceError(ModelSourceError):
    """There is no model at the source."""


class UnsafeWeightsError(ModelSourceError):
    """The weights are only pickles that nothing here converts; they can run code when opened."""


class SourceChangedError(ModelSourceError):
    """The source's files changed while they were being read."""


class OutboundError(ResourceError):
    """A model could not leave: a hub refuses it or does not answer, or a name cannot be right."""


class EndpointError(ResourceError):
    """An OpenAI-compatible endpoint does not answer, or not as it should."""


class RequestFailedError(ResourceError):
    """A request got no answer, or one with an error, at its last try.

    `status` is the server's, None where none came; then `cause` says why. `told` is how the answer
    begins, and `tries` how many there were. Its text holds no address, which may hold a password.
    """

    def __init__(
        self, status: int | None, told: bytes, cause: Exception | None, tries: int
    ) -> None:
        self.status, self.told, self.cause, self.tries = status, told, cause, tries
        super().__init__(f"HTTP {status}" if status is not None else type(cause).__name__)

    @property
    def why(self) -> str:
        """Return the reason in words; it may repeat what the system says of the address."""
        if self.status is not None:
            return f"HTTP {self.status}"
        return str(getattr(self.cause, "reason", self.cause))


class ComputeError(ResourceError):
    """GPUs were asked for that cannot be had."""
