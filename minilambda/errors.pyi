from miniλ.errors import *
