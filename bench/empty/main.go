// Command empty does nothing: the time it takes is what starting and ending any Go program takes.
package main

func main() {}
