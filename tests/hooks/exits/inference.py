import sys

sys.exit("use it as a module")
