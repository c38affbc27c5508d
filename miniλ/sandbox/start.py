"""The program of a zygote; its work is in `zygote_main`.

Rule: this file stays as short as it is. An interpreter compiles the file that it runs at each
start, and keeps the syntax tree until it ends: 2 kB a line, in the zygote and so in each worker. Of
an imported module it keeps the code alone.
"""

import json
import sys

if __name__ == "__main__":
    arguments = json.loads(sys.argv[1])
    sys.path.append(arguments["packages"])
    from miniλ.sandbox import zygote_main

    zygote_main.main(**arguments)
