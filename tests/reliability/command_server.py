"""Runs ``astrogan`` commands in processes of their own, under limits and with signals, without the cost of importing.

A program: it imports what the commands need once and forks for each job that a line on standard input describes; the
answer is a line too. Only a process can have a limit on its memory or its files, or be killed.

A job is a dict: ``argv``; ``cwd``; ``file_bytes``, no file may become longer; ``memory``, so many bytes may be
allocated on top of what the process has; ``permissions_bind``, root is held to them too; ``signal``, sent to itself
when the bytes of the ``nth`` file are about to be flushed, when the temporary file is there and the output is not.
``together``: a list of jobs that run at the same time.
"""

import contextlib
import ctypes
import faulthandler
import importlib
import json
import os
import resource
import select
import signal
import sys
import time
import traceback

NEEDED = [
    *(
        "astrogan.cli",
        "astrogan.bench.evaluate",
        "astrogan.demo",
        "astrogan.simulate.field",
        "astrogan.simulate.blends",
    ),
    *(
        "astrogan.simulate.blends",
        "astrogan.operators.restorer",
        "astrogan.operators.degrader",
        "astrogan.operators.deblender",
    ),
    *("astrogan.operators.translator", "astrogan.backends.classic.richardson_lucy", "astrogan.backends.gan.nafnet"),
    *("astrogan.backends.classic.watershed", "astrogan.backends.classic.psf_matching", "astrogan.weights.store"),
    *("galsim", "matplotlib.figure", "photutils.segmentation", "reproject", "safetensors.torch", "scipy.ndimage"),
    *("skimage.segmentation", "astropy.wcs", "astropy.table", "astropy.io.ascii.ecsv", "torch"),
    *("astrogan.train", "lightning.pytorch"),
]


def main():
    warm_up()
    print("ready", flush=True)
    for line in sys.stdin:
        job = json.loads(line)
        running = [start(one) for one in job.get("together", [job])]
        print(json.dumps([finished(*one) for one in running]), flush=True)


def warm_up():
    """Import what the commands would; the optional ones where they are."""
    os.environ["MPLBACKEND"] = "Agg"
    for name in NEEDED:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    sys.modules["torch"].set_num_threads(1)


def start(job):
    """Fork; the process, where it reports to, and when it has to be done."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        status = 250
        try:
            os.close(read)
            for descriptor in (1, 2):
                os.dup2(write, descriptor)
            faulthandler.enable()
            status = run(job)
        except BaseException:  # what would end the program with a traceback
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)
    os.close(write)
    return pid, read, time.monotonic() + job.get("seconds", 100)


def run(job):
    """What the program ``astrogan`` does, after the limits are set."""
    from astrogan.cli import main as command

    sys.stdin = open(os.devnull)  # noqa: SIM115 - for the rest of the process
    os.chdir(job["cwd"])
    if "signal" in job:
        signal_while_writing(job["signal"], job.get("nth", 1))
    if job.get("permissions_bind") and os.geteuid() == 0:
        drop_override()
    if "file_bytes" in job:
        resource.setrlimit(resource.RLIMIT_FSIZE, (job["file_bytes"],) * 2)
    if "memory" in job:
        with open("/proc/self/statm") as file:
            now = int(file.read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (now + job["memory"],) * 2)
    try:
        return command(job["argv"])
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 1


def drop_override():
    """Take the capability from root by which permissions do not bind it (CAP_DAC_OVERRIDE, capabilities(7))."""
    libc = ctypes.CDLL(None, use_errno=True)
    header, sets = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
    assert libc.capget(header, sets) == 0
    for number in (0, 1):  # effective and permitted, of the first 32 capabilities
        sets[number] &= ~(1 << 1)
    assert libc.capset(header, sets) == 0


def signal_while_writing(number, nth):
    """Patch the flush of finished bytes, which comes before the rename, to send a signal to this process."""
    from astrogan.image import write
    from astrogan.weights import _pair

    calls = []

    def after(function):
        def signalling(*arguments, **keywords):
            calls.append(function)
            if len(calls) == nth:
                os.kill(os.getpid(), number)
                time.sleep(0.05)  # a handler in Python runs before the next line, at the latest
            return function(*arguments, **keywords)

        return signalling

    signal.signal(signal.SIGINT, signal.default_int_handler)
    write._flush = after(write._flush)
    _pair._exchange = after(_pair._exchange)


def finished(pid, read, deadline):
    """Wait for a process: its exit status (negative: the signal that killed it) and what it said."""
    said = b""
    while time.monotonic() < deadline:
        if select.select([read], [], [], 0.5)[0]:
            part = os.read(read, 65536)
            if not part:
                break
            said += part
    else:
        os.kill(pid, signal.SIGKILL)
        said += b"\nit did not end"
    os.close(read)
    return {"status": os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), "said": said.decode(errors="replace")}


if __name__ == "__main__":
    main()
