from miniλ.model import *
