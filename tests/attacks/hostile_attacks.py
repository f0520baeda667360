"""What strangers, disks, colleagues and fingers do to a project: drawn, seeded, one at a time.

Each attack takes a case, changes its folder and says what it did. None of them may end in a
traceback, a hang, much memory, a byte from outside the folder, or a result that is not right.
"""

import json
import os
import pickle
import random
import signal
import socket
import struct
from collections.abc import Callable
from pathlib import Path

from safetensors.numpy import load_file, save_file

from tests.attacks.hostile_project import MODELS, TOKEN, Case, read_json, write_recipe
from tests.attacks.hostile_values import NAMES, NUMBERS, SIDE_FILES, TEXTS, WEIGHTS

Attack = Callable[[Case], str]
ATTACKS: dict[str, tuple[Attack, tuple[str, ...]]] = {}
ON_MODELS = ("plan", "inspect", "merge", "merge", "refresh")
ON_STORE = ("verify", "verify", "verify", "refresh")


def _attack(*verbs: str) -> Callable[[Attack], Attack]:
    def add(attack: Attack) -> Attack:
        ATTACKS[attack.__name__] = (attack, verbs)
        return attack

    return add


def draw_attack(rng: random.Random) -> tuple[str, Attack, str]:
    """Draw an attack's name, the attack, and the command that it is tried on."""
    name = rng.choice(sorted(ATTACKS))
    attack, verbs = ATTACKS[name]
    verb = rng.choice(verbs)
    if verb == "refresh" and rng.random() < 0.7:  # a refresh costs fifty plans
        verb = rng.choice([each for each in verbs if each != "refresh"] or ["refresh"])
    return name, attack, verb


def _side_file(case: Case) -> Path:
    path = case.model() / case.rng.choice(SIDE_FILES)
    path.parent.mkdir(exist_ok=True)
    path.unlink(missing_ok=True)
    return path


@_attack(*ON_MODELS)
def link_out(case: Case) -> str:
    path = _side_file(case)
    target = case.rng.choice(("absolute", "relative", "chain", "environ", "loop", "nowhere"))
    if target == "chain":
        (path.parent / "zz").symlink_to(case.secret)
    to = {
        "absolute": str(case.secret),
        "relative": os.path.relpath(case.secret, path.parent),
        "chain": "zz",
        "environ": "/proc/self/environ",
        "loop": path.name,
        "nowhere": "/nowhere/at/all",
    }[target]
    path.symlink_to(to)
    return f"{path.relative_to(case.root)} links {target}"


@_attack(*ON_MODELS)
def folder_link_out(case: Case) -> str:
    path = case.model() / case.rng.choice(("additional_chat_templates", "1_Pooling", "assets"))
    path.symlink_to(case.secret.parent, target_is_directory=True)
    return f"{path.relative_to(case.root)} is a linked folder"


@_attack(*ON_MODELS)
def linked_weights(case: Case) -> str:
    path = case.model() / WEIGHTS
    to = case.rng.choice(("moved", "moved", "/dev/zero", "secret", "folder"))
    if to == "moved":
        path.rename(case.root / "elsewhere.safetensors")
        path.symlink_to("../../elsewhere.safetensors")
        return "weights on another disk"
    case.sound = False
    path.unlink()
    path.symlink_to({"/dev/zero": to, "secret": str(case.secret), "folder": "/etc"}[to])
    return f"weights link to {to}"


@_attack(*ON_MODELS)
def special_file(case: Case) -> str:
    path = _side_file(case) if case.rng.random() < 0.8 else case.model() / WEIGHTS
    case.sound &= path.name != WEIGHTS
    path.unlink(missing_ok=True)
    kind = case.rng.choice(("fifo", "folder", "socket", "zero", "full"))
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "socket":
        here = Path.cwd()
        os.chdir(path.parent)  # the address of a socket is short
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(path.name)
        os.chdir(here)
    else:
        path.symlink_to(f"/dev/{kind}")
    return f"{path.relative_to(case.root)} is a {kind}"


@_attack(*ON_MODELS)
def sparse_file(case: Case) -> str:
    path = _side_file(case) if case.rng.random() < 0.8 else case.model() / WEIGHTS
    case.sound &= path.name != WEIGHTS
    size = case.rng.choice((1 << 20, 300 << 20, 3 << 30))
    with path.open("ab") as file:
        file.truncate(size)
    return f"{path.relative_to(case.root)} has {size} bytes"


@_attack(*ON_MODELS)
def text_of_a_side_file(case: Case) -> str:
    path = _side_file(case)
    text = case.rng.choice(TEXTS)
    path.write_bytes(text)
    return f"{path.relative_to(case.root)} is {text[:20]!r}"


@_attack("plan", "inspect", "merge", "refresh")
def numbers_of_a_config(case: Case) -> str:
    path = case.model() / "config.json"
    document = read_json(path)
    key = case.rng.choice(
        [*sorted(document), "num_local_experts", "quantization_config", "text_config"]
    )
    number = case.rng.choice(NUMBERS)
    document[key] = "\x00"
    path.write_text(json.dumps(document).replace('"\\u0000"', number), encoding="utf-8")
    return f"{path.relative_to(case.root)}: {key} is {number[:20]}"


@_attack("plan", "merge")
def text_of_the_recipe(case: Case) -> str:
    text = case.rng.choice(TEXTS)
    if case.rng.random() < 0.5:
        text = case.recipe.read_bytes() + text
    case.recipe.write_bytes(text)
    return f"the recipe is {text[-20:]!r}"


@_attack("plan", "merge")
def values_of_the_recipe(case: Case) -> str:
    key = case.rng.choice(
        ("dtype", "out_dtype", "merge_method", "base_model", "models", "slices", "parameters")
    )
    value = case.rng.choice(
        (*NAMES, 1e999, 10**400, [], {}, None, True, [[[]]] * 50, "x" * 100_000, -1)
    )
    write_recipe(case.recipe, {key: value} if not _surrogate(value) else {})
    case.sound = False
    return f"recipe: {key} is {str(value)[:20]!r}"


def _surrogate(value: object) -> bool:
    return isinstance(value, str) and any("\ud800" <= each <= "\udfff" for each in value)


@_attack("plan", "merge", "merge")
def hostile_model_name(case: Case) -> str:
    name = case.rng.choice([each for each in NAMES if "/" not in each and each != ".."])
    folder = case.upstream / os.fsencode(name).decode("utf-8", "surrogateescape")
    (case.upstream / "e2").rename(folder)
    models = [{"model": f"upstream/{each}", "parameters": {"weight": 0.5}} for each in ("e1", name)]
    if _surrogate(name):
        models[1]["model"] = "upstream/*"
    write_recipe(case.recipe, {"models": models})
    return f"a model called {name!r}"


@_attack("merge")
def hostile_output_name(case: Case) -> str:
    case.out = case.rng.choice([each for each in NAMES if "\x00" not in each])
    if _surrogate(case.out) or case.out.startswith(("/", "-", ".")):
        case.out = "x" + case.out.strip("/.")
    return f"an output called {case.out!r}"


@_attack("plan", "inspect", "merge")
def hostile_tensor_name(case: Case) -> str:
    name = case.rng.choice(
        [each for each in NAMES if not _surrogate(each) and each != "__metadata__"]
    )
    for model in MODELS:
        path = case.upstream / model / WEIGHTS
        tensors = load_file(path)
        tensors[name] = tensors["model.norm.weight"]
        save_file(tensors, path, {"format": "pt"})
    case.sound = False
    return f"a tensor called {name!r}"


@_attack("plan", "inspect", "merge")
def spoiled_header(case: Case) -> str:
    path = case.model() / WEIGHTS
    data = path.read_bytes()
    (size,) = struct.unpack("<Q", data[:8])
    header, rest = data[8 : 8 + size], data[8 + size :]
    kind = case.rng.choice(
        ("length", "deep", "million", "offsets", "shape", "twice", "cut", "more")
    )
    case.sound = False
    if kind == "length":
        data = struct.pack("<Q", case.rng.choice((0, 1, 2**40, 2**63, size - 1))) + data[8:]
    elif kind == "deep":
        data = _with_header(b'{"a":' * 50_000, rest)
    elif kind == "million":
        entry = '"t%d":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}'
        data = _with_header(("{" + ",".join(entry % n for n in range(200_000)) + "}").encode(), b"")
    elif kind in ("offsets", "shape"):
        document = json.loads(header)
        chosen = case.rng.choice([each for each in document if each != "__metadata__"])
        wrong = case.rng.choice(
            ([0, 1e30], [5, 1], [-1, 4], [0, 2**70], ["a", None], [True, 4], [])
        )
        document[chosen]["data_offsets" if kind == "offsets" else "shape"] = wrong
        data = _with_header(json.dumps(document).encode(), rest)
    elif kind == "twice":
        data = _with_header(header[:-1] + b"," + header[1:], rest)
    else:
        data = data[: case.rng.randrange(len(data))] if kind == "cut" else data + b"\x00" * 64
    path.write_bytes(data)
    return f"the header of {path.parent.name}: {kind}"


def _with_header(header: bytes, rest: bytes) -> bytes:
    return struct.pack("<Q", len(header)) + header + rest


@_attack("plan", "inspect", "merge", "refresh")
def hostile_pickle(case: Case) -> str:
    folder = case.model()
    (folder / WEIGHTS).unlink()
    case.sound = False

    class Runs:
        def __reduce__(self) -> tuple[object, ...]:
            return (os.system, (f"cp {case.secret} {case.root}/results/stolen",))

    texts = (
        pickle.dumps({"a": Runs()}),
        b"\x80\x02" + b"(" * 100_000,
        b"cposix\nsystem\n(S'id'\ntR.",
        b"\x80\x04\x8a\xff" + b"\xff" * 255 + b".",
        b"PK\x03\x04" + b"\x00" * 100,
        b"",
        b"\x80",
        b"\x80\x02]" + b"(K\x01" * 10_000 + b"e.",
    )
    (folder / "pytorch_model.bin").write_bytes(case.rng.choice(texts))
    return f"a pickle in {folder.name}"


@_attack("plan", "merge", "refresh")
def hostile_tokenizer(case: Case) -> str:
    path = case.model() / "tokenizer.json"
    document = read_json(path)
    rule = {"type": "Replace", "pattern": {"String": "a"}, "content": "a" * 1000}
    kind = case.rng.choice(("replace", "regex", "split", "tokens"))
    if kind == "replace":
        document["normalizer"] = {"type": "Sequence", "normalizers": [rule] * 5}
    elif kind == "tokens":
        document["added_tokens"] = [
            {"id": 10**9, "content": each} for each in NAMES if not _surrogate(each)
        ]
    else:
        pattern = {"Regex": case.rng.choice(("(a+)+$", "(" * 5000, "(?<!a", "\\p{Nonsense}"))}
        split = {"type": "Split", "pattern": pattern, "behavior": "Isolated", "invert": False}
        document["pre_tokenizer"] = split
    path.write_text(json.dumps(document), encoding="utf-8")
    return f"a tokenizer with {kind}"


@_attack("plan", "merge")
def odd_options(case: Case) -> str:
    value = case.rng.choice(
        ("0", "-1", "1.2.3", "1e999", "9" * 5000, "５GB", "", " ", "NaN", "1XB", "\x1b[2J")
    )
    option = case.rng.choice(("--memory", "--shard-size", "--threads", "--device", "--seed"))
    if case.verb == "merge":
        case.options = [f"{option}={value}"]
        return f"{option}={value[:20]!r}"
    case.options = [value or "x"]
    return f"a further argument {value[:20]!r}"


@_attack("merge", "merge", "merge", "refresh")
def signal_at_random(case: Case) -> str:
    number = case.rng.choice((signal.SIGINT, signal.SIGTERM, signal.SIGHUP))
    case.stop = (number, case.rng.uniform(0, 0.4 if case.verb == "merge" else 5))
    return f"{signal.Signals(number).name} after {case.stop[1]:.3f} s"


@_attack("merge")
def full_disk(case: Case) -> str:
    case.disk = case.rng.choice((4096, 16384, 65536))
    return f"a disk of {case.disk} bytes"


@_attack(*ON_STORE)
def damaged_store(case: Case) -> str:
    files = sorted(each for each in case.store.rglob("*") if each.is_file())
    path = case.rng.choice([each for each in files if each.stat().st_size])
    kind = case.rng.choice(
        ("flip", "flip", "flip", "cut", "empty", "gone", "garbage", "deep", "fifo", "link")
    )
    data = path.read_bytes()
    if kind == "flip":
        place = case.rng.randrange(len(data))
        path.write_bytes(
            data[:place] + bytes([data[place] ^ 1 << case.rng.randrange(8)]) + data[place + 1 :]
        )
    elif kind == "cut":
        path.write_bytes(data[: case.rng.randrange(len(data))])
    elif kind in ("empty", "garbage", "deep"):
        path.write_bytes({"empty": b"", "garbage": b"\xff{]", "deep": b"[" * 100_000}[kind])
    else:
        path.unlink()
        if kind == "fifo":
            os.mkfifo(path)
        elif kind == "link":
            path.symlink_to(case.secret)
    return f"{path.relative_to(case.root)}: {kind}"


@_attack("refresh")
def damaged_catalog(case: Case) -> str:
    files = sorted(each for each in (case.root / "catalog").rglob("*") if each.is_file())
    path = case.rng.choice(files)
    text = case.rng.choice(TEXTS)
    path.write_bytes(text if case.rng.random() < 0.5 else path.read_bytes() + text)
    return f"{path.relative_to(case.root)} ends with {text[-20:]!r}"


SECRET = f"{TOKEN} of somebody else"
