// Command empty does nothing. Its run time is that of starting and ending any Go program.
package main

func main() {}
