// Command list lists a directory, reads every file in it and prints the number of files and bytes. A daemon cannot
// answer for a spool directory with less work.
package main

import (
	"fmt"
	"os"
	"path/filepath"
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: list DIRECTORY")
		os.Exit(2)
	}
	files, size, err := read(os.Args[1])
	if err != nil {
		fmt.Fprintln(os.Stderr, "list:", err)
		os.Exit(1)
	}
	fmt.Printf("%d files, %d bytes\n", files, size)
}

// read reads all files of a directory in order and returns their number and total size.
func read(dir string) (files, size int, err error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return 0, 0, err
	}
	for _, e := range entries {
		text, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			return 0, 0, err
		}
		files++
		size += len(text)
	}
	return files, size, nil
}
