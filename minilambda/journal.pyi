from miniλ.journal import *
