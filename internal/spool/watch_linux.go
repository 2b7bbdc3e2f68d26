package spool

import (
	"encoding/binary"
	"errors"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// watchMask has every event after which a file of the directory may have other content, and those of the directory
// itself.
const watchMask = unix.IN_CREATE | unix.IN_MODIFY | unix.IN_CLOSE_WRITE | unix.IN_MOVED_TO | unix.IN_MOVED_FROM |
	unix.IN_DELETE | unix.IN_ATTRIB | unix.IN_DELETE_SELF | unix.IN_MOVE_SELF | unix.IN_ONLYDIR

// rawWatch is a second inotify descriptor, next to that of fsnotify: a lookup can ask this one whether there are events that
// were not read yet. See the package comment.
type rawWatch struct {
	fd, wd int
	buf    []byte
}

func openRawWatch() (*rawWatch, error) {
	fd, err := unix.InotifyInit1(unix.IN_NONBLOCK | unix.IN_CLOEXEC)
	if err != nil {
		return nil, err
	}
	return &rawWatch{fd: fd, wd: -1}, nil
}

// add watches the directory root instead of the previous one.
func (w *rawWatch) add(root string) error {
	wd, err := unix.InotifyAddWatch(w.fd, root, watchMask)
	if err != nil {
		return err
	}
	if w.wd >= 0 && wd != w.wd {
		_, _ = unix.InotifyRmWatch(w.fd, uint32(w.wd)) // it fails if the directory is gone, and the watch with it
	}
	w.wd = wd
	return nil
}

// drain moves the queued events into b.
func (w *rawWatch) drain(b *eventBatch) error {
	if w.buf == nil {
		w.buf = make([]byte, 64<<10)
	}
	for {
		n, err := unix.Read(w.fd, w.buf)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.EAGAIN):
			return nil
		case err != nil:
			return err
		}
		for buf := w.buf[:n]; len(buf) >= unix.SizeofInotifyEvent; {
			wd := int(int32(binary.NativeEndian.Uint32(buf)))
			mask := binary.NativeEndian.Uint32(buf[4:])
			end := unix.SizeofInotifyEvent + int(binary.NativeEndian.Uint32(buf[12:]))
			name := unix.ByteSliceToString(buf[unix.SizeofInotifyEvent:end])
			buf = buf[end:]
			b.count++
			switch {
			case mask&unix.IN_Q_OVERFLOW != 0:
				b.overflow = true
			case wd != w.wd: // of the previous directory
			case mask&(unix.IN_DELETE_SELF|unix.IN_MOVE_SELF|unix.IN_IGNORED|unix.IN_UNMOUNT) != 0:
				if mask&unix.IN_IGNORED != 0 {
					w.wd = -1
				}
				b.unmounted = b.unmounted || mask&unix.IN_UNMOUNT != 0
			case name == "": // attributes of the directory: it may have become readable or unreadable
			default:
				b.add(name, mask&unix.IN_DELETE != 0)
			}
		}
	}
}

func (w *rawWatch) close() { _ = unix.Close(w.fd) }

// hasUnreadEvents asks with FIONREAD, which Linux also calls TIOCINQ, whether the inotify descriptor fd has events to read. The
// call takes only a spinlock, so that it need not go through the scheduler. pending returns true on an error, which the
// slow path then finds.
func hasUnreadEvents(fd int32) bool {
	var n int32
	_, _, errno := syscall.RawSyscall(syscall.SYS_IOCTL, uintptr(fd), unix.TIOCINQ, uintptr(unsafe.Pointer(&n))) //nolint:gosec // the kernel writes one int32 there, and the conversion is in the call
	return n != 0 || errno != 0
}
