"""Runs the checks of a model in child processes, and outlives them."""

import multiprocessing
import os
import signal
import sys
import warnings

import run_one
import torch

SECONDS = 90  # without a word from the child


def child(models, name, checks, connection):
    """`models` is the name of a module that has them in `MODELS`."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    runner = run_one.Runner(__import__(models).MODELS[name])
    for check in checks:
        connection.send(check)
        connection.send(runner.run(check))


def server():
    """A process that has the libraries loaded, and forks a child in no time."""
    # It finds the modules by the environment alone.
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))
    os.environ["HF_HUB_OFFLINE"] = "1"
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["_zoo"])
    return context


def death(process, seconds):
    if process.exitcode is None:
        process.kill()
        process.join()
        return f"no answer for {seconds} s"
    if process.exitcode < 0:
        return signal.Signals(-process.exitcode).name
    return f"exit status {process.exitcode}"


def outcomes(context, models, name, checks, seconds=SECONDS):
    """(outcome, why) of each check. A new child goes on after the check that one died of."""
    found, left = {}, list(checks)
    while left:
        ours, its = context.Pipe(duplex=False)
        process = context.Process(target=child, args=(models, name, left, its), daemon=True)
        process.start()
        its.close()
        running = left[0]
        try:
            while left and ours.poll(seconds):
                running = ours.recv()
                if not ours.poll(seconds):
                    break
                found[running] = ours.recv()
                left.remove(running)
        except EOFError:
            process.join()
        ours.close()
        if left:
            found[running] = "died", death(process, seconds)
            left.remove(running)
        process.join()
    return found
