"""This module is the program that a zygote is started as; what a zygote does is in `zygote_main`.

Rule: nothing else is here. An interpreter compiles the file that it is told to run each time, and
keeps its syntax tree for as long as it runs: 2 kB a line, in the zygote and so in each worker. Of
a module that is imported it keeps the code only.
"""

import json
import sys

if __name__ == "__main__":
    given = json.loads(sys.argv[1])
    sys.path.append(given["packages"])
    from miniλ.sandbox import zygote_main

    zygote_main.main(**given)
