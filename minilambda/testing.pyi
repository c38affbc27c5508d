from miniλ.testing import *
