//go:build unix && !linux

package spool

import "errors"

// rawWatch exists only on Linux. Elsewhere every lookup reads the directory.
type rawWatch struct{ fd, wd int }

func openRawWatch() (*rawWatch, error) { return nil, errors.ErrUnsupported }

func (w *rawWatch) add(string) error        { return errors.ErrUnsupported }
func (w *rawWatch) drain(*eventBatch) error { return errors.ErrUnsupported }
func (w *rawWatch) close()                  {}

func hasUnreadEvents(int32) bool { return false }
