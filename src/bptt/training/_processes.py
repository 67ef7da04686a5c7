"""Whether this process trains alone or with others, and how it joins them."""

from __future__ import annotations

import os
from dataclasses import is_dataclass
from datetime import timedelta
from typing import Any

import torch.distributed as dist

from bptt.network import Network
from bptt.streams import Stream
from bptt.training._alone import Alone
from bptt.training._together import Together


def join_processes(backend: str | None = None, timeout: timedelta = timedelta(minutes=10)) -> None:
    """Join the processes that torchrun started, `torch.distributed.init_process_group` for those
    that may be started again: the address book of an earlier attempt, which a restart leaves in
    torchrun's store, is not read.

    Args:
        backend: ``"gloo"`` on CPUs, ``"nccl"`` on GPUs; default: by what there is.
        timeout: how long a process waits for the others before it gives up.
    """
    from torch.distributed.distributed_c10d import PrefixStore
    from torch.distributed.rendezvous import rendezvous

    store, rank, world = next(rendezvous("env://", timeout=timeout))
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    fresh = PrefixStore(f"attempt-{attempt}", store)
    dist.init_process_group(backend, store=fresh, rank=rank, world_size=world, timeout=timeout)


def several() -> bool:
    """Whether `torch.distributed` was initialised, and this process is not the only one."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def processes(network: Network, options: dict[str, Any]) -> Alone:
    """How this process trains: alone, or together with others."""
    if not several():
        return Alone()
    sizes = {name: list(p.shape) for name, p in network.named_parameters()}
    told = {name: _told(value) for name, value in options.items()}
    return Together(network, {"network": f"a network with {sizes}", **told})


def _told(value: Any) -> str:
    """What an option says, without what differs between processes by nature (addresses)."""
    if isinstance(value, Stream):
        return str(value.state_dict())
    if isinstance(value, list):
        return ", ".join(map(_told, value)) or "none"
    if value is None or is_dataclass(value) or isinstance(value, (str, int, float)):
        return repr(value)
    return str(getattr(value, "__name__", type(value).__name__))
