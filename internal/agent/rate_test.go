//go:build unix && !race

package agent

import (
	"bufio"
	"io"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// TestRate: the agent gives at least half as many answers a second as a server that reads a line and writes a constant.
// They run in turns, so that whatever else the machine does costs both; what counts is the median of the ratios.
func TestRate(t *testing.T) {
	const turns, turn, least = 9, 200 * time.Millisecond, 0.5
	agent, constant := newSpoolAgent(t).addr, constantServer(t)
	var ratios []float64
	for range turns {
		bare := rate(t, constant, turn)
		ratios = append(ratios, rate(t, agent, turn)/bare)
	}
	slices.Sort(ratios)
	t.Logf("%.2f times as many", ratios[turns/2])
	if ratios[turns/2] < least {
		t.Errorf("%.2f times as many answers as a constant, want at least %.2f; all turns: %.2f", ratios[turns/2], least, ratios)
	}
}

// rate returns how many answers a second 16 clients get at an address.
func rate(t *testing.T, addr string, turn time.Duration) float64 {
	t.Helper()
	var answers atomic.Int64
	var clients sync.WaitGroup
	began := time.Now()
	for range 16 {
		clients.Go(func() {
			for time.Since(began) < turn {
				if err := askFromAnyAddress(addr); err != nil {
					t.Error(err)
					return
				}
				answers.Add(1)
			}
		})
	}
	clients.Wait()
	return float64(answers.Load()) / time.Since(began).Seconds()
}

// constantServer starts a server that answers each line with what question wants, and returns its address.
func constantServer(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var served sync.WaitGroup
	served.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return // it is closed
			}
			served.Go(func() {
				defer c.Close()
				if _, err := bufio.NewReader(c).ReadString('\n'); err == nil {
					_, _ = io.WriteString(c, "ready down #kernel upgrade\n") // a client that has gone needs no answer
				}
			})
		}
	})
	t.Cleanup(func() {
		l.Close()
		served.Wait()
	})
	return l.Addr().String()
}
