package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// startTime measures the time from the start of the process to its first answer, with 10,000 overrides. It compares it
// with a program that lists and reads the same files.
func (b *bench) startTime() error {
	const files = 10000
	dir, err := b.writeOverrides(files)
	if err != nil {
		return err
	}
	took, err := b.interleave(2, func(i int) (float64, error) {
		if i == 1 {
			return b.timeToFirstAnswer(dir, fmt.Sprintf("/spool/down-%d/0/", files-1))
		}
		began := time.Now()
		out, err := exec.CommandContext(b.ctx, b.list, dir).CombinedOutput()
		ms := float64(time.Since(began)) / float64(time.Millisecond)
		if want := fmt.Sprintf("%d files, %d bytes\n", files, files*len(overrideJSON)); err != nil || string(out) != want {
			return 0, fmt.Errorf("the program that lists and reads printed %q, want %q: %w", out, want, err)
		}
		return ms, nil
	})
	if err != nil {
		return err
	}
	b.addAtMost("from start to first answer, 10,000 spool files, × a program that lists and reads them", ratios(took[1], took[0]), 3, "×",
		fmt.Sprintf("%.1f ms (%s), the program %.1f ms (%s)", median(took[1]), spread(took[1], "%.1f"), median(took[0]), spread(took[0], "%.1f")))
	return nil
}

// timeToFirstAnswer starts a daemon and returns the milliseconds until its first answer. It returns an error if the
// answer does not contain the override.
func (b *bench) timeToFirstAnswer(spoolRoot, path string) (float64, error) {
	port, err := freePort()
	if err != nil {
		return 0, err
	}
	addr := "127.0.0.1:" + strconv.Itoa(port)
	cmd := exec.CommandContext(b.ctx, filepath.Join(b.bin, "hacheck"), "-B", "127.0.0.1", "-p", strconv.Itoa(port), "--spool-root", spoolRoot)
	began := time.Now()
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	defer func() {
		_ = cmd.Process.Kill() // Wait returns that it was killed
		_ = cmd.Wait()
	}()
	for time.Since(began) < 30*time.Second {
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			time.Sleep(200 * time.Microsecond) // the precision of the result
			continue
		}
		_, err = fmt.Fprintf(conn, "GET %s HTTP/1.0\r\n\r\n", path)
		var answer []byte
		if err == nil {
			answer, err = io.ReadAll(conn)
		}
		took := time.Since(began)
		conn.Close()
		if err != nil || !strings.Contains(string(answer), "503 Service Unavailable\r\n") {
			return 0, fmt.Errorf("the first answer is %q: %w", answer, err)
		}
		return float64(took) / float64(time.Millisecond), nil
	}
	return 0, errors.New("no answer in 30 s")
}
