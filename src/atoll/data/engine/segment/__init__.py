"""Segment: Chinese cut into words by the dictionary and the hidden Markov model of the package jieba.

The words are those of `jieba.lcut`, to the last one; how they are found is written anew as kernels. Nothing of the
package is kept here: its tables are read from where it is installed.
"""
