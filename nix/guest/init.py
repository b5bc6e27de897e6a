#!/usr/bin/python3.13 -I
print("stub")
