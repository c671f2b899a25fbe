"""A Ray cluster of two nodes on this machine, run by Ray's Python: prints address and node, then obeys stdin.

remove NAME    kills the node that has the resource NAME, as a machine that is lost
add NAME       adds one, and prints its id
"""

import sys

from ray.cluster_utils import Cluster

NODES = {}


def main() -> None:
    """Serves until stdin ends."""
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "resources": {"head": 1}})

    def add(name: str) -> None:
        NODES[name] = cluster.add_node(num_cpus=1, resources={name: 1})
        cluster.wait_for_nodes()
        print(NODES[name].node_id, flush=True)

    print(cluster.address, flush=True)
    add("big")
    for line in sys.stdin:
        what, name = line.split()
        if what == "remove":
            cluster.remove_node(NODES.pop(name), allow_graceful=False)
            print("removed", flush=True)
        else:
            add(name)
    cluster.shutdown()


if __name__ == "__main__":
    main()
