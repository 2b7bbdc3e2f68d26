package main

// This file is no part of hacheck: tests add it by "go build -overlay". SIGUSR1 makes the process crash in the way that
// the file $CRASH names.

import (
	"os"
	"os/signal"
	"strings"
	"syscall"
)

func init() {
	usr1 := make(chan os.Signal, 1)
	signal.Notify(usr1, syscall.SIGUSR1)
	go func() {
		<-usr1
		kind, err := os.ReadFile(os.Getenv("CRASH"))
		if err != nil {
			panic(err)
		}
		crash(strings.TrimSpace(string(kind)))
	}()
}

func crash(kind string) {
	switch kind {
	case "panic":
		panic("on purpose")
	case "nil pointer":
		var p *[1]int
		p[0]++
	case "concurrent map writes":
		m := map[int]int{}
		for range 8 {
			go func() {
				for i := 0; ; i++ {
					m[i%8] = i
				}
			}()
		}
	case "stack overflow":
		overflow(0)
	case "out of memory":
		if err := syscall.Setrlimit(syscall.RLIMIT_AS, &syscall.Rlimit{}); err != nil {
			panic(err)
		}
		for all := [][]byte{}; ; {
			all = append(all, make([]byte, 1<<20))
		}
	default:
		panic("unknown kind " + kind)
	}
}

func overflow(n int) int { return overflow(n+1) + 1 }
