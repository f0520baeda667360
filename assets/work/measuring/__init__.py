"""What the child that runs models is asked: gates, routers, statistics of moe_experts, grades."""
