"""Reads and writes overrides as the Python tools of the original do: names by hand, json, files in place.

    spool.py read ROOT NAME        print what a file says, as one JSON document
    spool.py write ROOT NAME JSON  json.dump an override into the file, in place
    spool.py text ROOT NAME TEXT   the file has just that text, as before there was JSON
    spool.py rewrite ROOT NAME N   json.dump the same override N times
    spool.py remove ROOT NAME
"""

import json
import os
import sys
import time


def read(path):
    """What the tools make of a file: nothing, JSON, or else the text is the reason."""
    if not os.path.exists(path):
        return {"up": True}
    with open(path) as f:
        content = f.read()
    try:
        info = json.loads(content)
    except ValueError:
        info = {"reason": content}
    expiration = info.get("expiration")
    if expiration is not None and expiration < time.time():
        return {"up": True}
    return {
        "up": False,
        "reason": info.get("reason") or "",
        # Plain %f is what they print.
        "expiration": "" if expiration is None else "%f" % expiration,
        "creation": "" if info.get("creation") is None else "%f" % info["creation"],
        "keys": sorted(info),
    }


def write(path, info):
    with open(path, "w") as f:
        json.dump(info, f)


def main(action, root, name, argument=None):
    path = os.path.join(root, name)
    if action == "read":
        print(json.dumps(read(path)))
    elif action == "write":
        write(path, json.loads(argument))
    elif action == "text":
        with open(path, "w") as f:
            f.write(argument)
    elif action == "rewrite":
        info = {"reason": "again", "expiration": None, "creation": 1500000000.5}
        for _ in range(int(argument)):
            write(path, info)
    elif action == "remove":
        os.remove(path)
    else:
        sys.exit("no such action: " + action)


main(*sys.argv[1:])
