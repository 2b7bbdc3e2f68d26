package checktest

import (
	"io"
	"net"
	"time"
)

// cutConn writes at most left bytes. After that reads and writes fail, so that the handler ends.
type cutConn struct {
	net.Conn
	left int
	cut  bool
}

func (c *cutConn) Write(b []byte) (int, error) {
	if len(b) <= c.left {
		c.left -= len(b)
		return c.Conn.Write(b)
	}
	n, err := c.Conn.Write(b[:c.left])
	c.left, c.cut = 0, true
	if err == nil {
		err = io.ErrShortWrite
	}
	return n, err
}

func (c *cutConn) Read(b []byte) (int, error) {
	if c.cut {
		return 0, io.EOF
	}
	return c.Conn.Read(b)
}

// slowConn writes a byte every 20 ms.
type slowConn struct{ net.Conn }

func (c slowConn) Write(b []byte) (int, error) {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for i := range b {
		<-tick.C
		if n, err := c.Conn.Write(b[i : i+1]); err != nil {
			return i + n, err
		}
	}
	return len(b), nil
}
