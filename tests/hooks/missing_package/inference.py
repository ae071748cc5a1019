import sys

from helper import use

print(sys, use)
