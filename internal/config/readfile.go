package config

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"syscall"
	"unicode/utf8"
)

// maxFile is the largest file that is read, in bytes.
const maxFile = 1 << 20

// readFile returns the text of a regular file. A file that can be read only once is an error: SIGHUP reads it again.
func readFile(path string) ([]byte, error) {
	// Without O_NONBLOCK, opening a FIFO would block until a writer opens it.
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, withoutPath(err)
	}
	defer func() { _ = f.Close() }()
	switch fi, err := f.Stat(); {
	case err != nil:
		return nil, withoutPath(err)
	case fi.IsDir():
		return nil, errors.New("expected a file, got a directory")
	case !fi.Mode().IsRegular() && path != os.DevNull:
		return nil, errors.New("expected a regular file, got a pipe, socket or device")
	}
	return readText(f)
}

// readOnce returns the text of a file that is read only once, and a loader for it. The file may be a pipe; path "-" is
// stdin.
func readOnce(path string, stdin io.Reader) (*loader, []byte, error) {
	l, r := &loader{file: path}, stdin
	fail := func(err error) (*loader, []byte, error) {
		return nil, nil, Errors{{File: l.file, Text: err.Error()}}
	}
	if path == "-" {
		l.file = "standard input"
	} else {
		f, err := os.Open(path)
		if err != nil {
			return fail(withoutPath(err))
		}
		defer func() { _ = f.Close() }()
		if fi, err := f.Stat(); err == nil && fi.IsDir() {
			return fail(errors.New("expected a file, got a directory"))
		}
		r = f
	}
	data, err := readText(r)
	if err != nil {
		return fail(err)
	}
	return l, data, nil
}

// readText returns everything that r has, or an error if it is longer than maxFile or no UTF-8 text.
func readText(r io.Reader) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(r, maxFile+1))
	switch {
	case err != nil:
		return nil, withoutPath(err)
	case len(data) > maxFile:
		return nil, errors.New("expected a configuration file of at most 1 MiB, got a larger one")
	case bytes.IndexByte(data, 0) >= 0 || !utf8.Valid(data):
		return nil, errors.New("expected UTF-8 text, got binary data")
	}
	return data, nil
}

// withoutPath removes operation and path from an error of package os, because the caller names the file.
func withoutPath(err error) error {
	var p *fs.PathError
	if errors.As(err, &p) {
		return p.Err
	}
	return err
}
