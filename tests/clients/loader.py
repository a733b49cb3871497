"""Worker processes that read a map-style data set, as torch's DataLoader has them.

The data set goes to each worker once, by fork or by pickle; numbers come through one queue for each worker,
and batches go back through one for all.
"""

import os
import queue


def work(dataset, numbers, batches) -> None:
    """A worker: batches until there is None to do, then what its cache has counted."""
    while (todo := numbers.get()) is not None:
        place, which = todo
        try:
            batches.put((place, dataset.__getitems__(which)))
        except Exception as error:
            batches.put((place, error))
    batches.put((None, (os.getpid(), dataset.stats())))


def load(context, dataset, which: list[list[int]], workers: int = 2):
    """Every batch in order, and for each worker its process and its cache's counters."""
    batches = context.Queue()
    queues = [context.Queue() for _ in range(workers)]
    processes = [context.Process(target=work, args=(dataset, numbers, batches)) for numbers in queues]
    for process in processes:
        process.start()
    for place, todo in enumerate(which):
        queues[place % workers].put((place, todo))
    for numbers in queues:
        numbers.put(None)
    loaded, counted = {}, {}
    while len(loaded) < len(which) or len(counted) < workers:
        try:
            place, batch = batches.get(timeout=1)
        except queue.Empty:
            ended = [process.exitcode for process in processes]
            assert not any(ended), f"a worker died: {ended}"
            continue
        if place is None:
            counted[batch[0]] = batch[1]
        else:
            loaded[place] = batch
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    return [loaded[place] for place in range(len(which))], counted
