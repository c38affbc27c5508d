from miniλ.settings import *
