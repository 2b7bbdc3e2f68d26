package check_test

import (
	"bytes"
	"cmp"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/x509"
	"encoding/binary"
	"encoding/pem"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
)

// mysqlServer is a fake MySQL server that handles logins, because Debian has no package of MySQL 8.
// MySQL itself was not asked.
type mysqlServer struct {
	defaultMethod string // in its greeting
	method        string // the user's
	user          string
	password      string
	cached        bool // caching_sha2_password: the server has cached the hash of the password
	key           *rsa.PrivateKey
	nonce         string                // of a request for the method, "" for nonce and a 0
	answers       map[string][][]string // by a part of the statement; nil: the variables of a primary

	mu    sync.Mutex
	quits int // logins that ended with COM_QUIT
}

// nonce has 20 bytes, as those of MySQL. A 0 follows it on the wire.
const nonce = "abcdefghijklmnopqrst"

// mysqlWire reads and writes packets.
type mysqlWire struct {
	net.Conn
	sequence byte
}

func (w *mysqlWire) send(payload []byte) {
	n := len(payload)
	packet := append([]byte{byte(n), byte(n >> 8), byte(n >> 16), w.sequence}, payload...)
	w.sequence++
	_, _ = w.Write(packet)
}

func (w *mysqlWire) receive() ([]byte, error) {
	head := make([]byte, 4)
	if _, err := io.ReadFull(w, head); err != nil {
		return nil, err
	}
	w.sequence = head[3] + 1
	payload := make([]byte, int(head[0])|int(head[1])<<8|int(head[2])<<16)
	_, err := io.ReadFull(w, payload)
	return payload, err
}

// greeting returns a handshake packet of version 10.
func greeting(version, method string) []byte {
	const capabilities = 1<<0 | 1<<2 | 1<<9 | 1<<13 | 1<<15 | 1<<19
	p := append([]byte{10}, version+"\x00"...)
	p = append(p, 1, 0, 0, 0)
	p = append(p, nonce[:8]...)
	p = append(p, 0)
	p = binary.LittleEndian.AppendUint16(p, capabilities&0xffff)
	p = append(p, 45, 2, 0)
	p = binary.LittleEndian.AppendUint16(p, capabilities>>16)
	p = append(p, byte(len(nonce)+1))
	p = append(p, make([]byte, 10)...)
	p = append(p, nonce[8:]+"\x00"...)
	return append(p, method+"\x00"...)
}

func mysqlErr(code uint16, message string) []byte {
	return append(binary.LittleEndian.AppendUint16([]byte{0xff}, code), message...)
}

var (
	mysqlOK     = []byte{0, 0, 0, 2, 0, 0, 0}
	mysqlDenied = mysqlErr(1045, "#28000Access denied for user 'operator'@'localhost' (using password: YES)")
)

func (s *mysqlServer) serve(conn net.Conn) {
	w := &mysqlWire{Conn: conn}
	w.send(greeting("8.4.0", s.defaultMethod))
	user, answer, method, err := s.login(w)
	if err != nil {
		return
	}
	if method != s.method {
		w.send([]byte("\xfe" + s.method + "\x00" + cmp.Or(s.nonce, nonce+"\x00")))
		if answer, err = w.receive(); err != nil {
			return
		}
	}
	if user != s.user || !s.accepts(w, answer) {
		w.send(mysqlDenied)
		return
	}
	w.send(mysqlOK)
	s.answer(w)
}

// answer answers queries until COM_QUIT.
func (s *mysqlServer) answer(w *mysqlWire) {
	for {
		w.sequence = 0
		p, err := w.receive()
		switch {
		case err != nil:
			return
		case bytes.Equal(p, []byte{1}):
			s.mu.Lock()
			s.quits++
			s.mu.Unlock()
			return
		}
		answer, known := [][]string{{"Variable_name", "Value"}, {"version", "8.4.0"}, {"read_only", "OFF"}}, true
		if s.answers != nil {
			for part, rows := range s.answers {
				if known = strings.Contains(string(p), part); known {
					answer = rows
					break
				}
			}
		}
		if !known {
			w.send(mysqlErr(1064, "#42000no such statement here"))
			continue
		}
		w.sendRows(answer)
	}
}

// sendRows sends a result: the names of its columns, then its rows.
func (w *mysqlWire) sendRows(rows [][]string) {
	eof := []byte{0xfe, 0, 0, 2, 0}
	text := func(to []byte, s string) []byte { return append(append(to, byte(len(s))), s...) }
	w.send([]byte{byte(len(rows[0]))})
	for _, name := range rows[0] {
		p := text(nil, "def")
		for _, s := range []string{"", "", "", name, name} {
			p = text(p, s)
		}
		w.send(append(p, 12, 45, 0, 255, 0, 0, 0, 253, 0, 0, 0, 0, 0))
	}
	w.send(eof)
	for _, row := range rows[1:] {
		var p []byte
		for _, s := range row {
			p = text(p, s)
		}
		w.send(p)
	}
	w.send(eof)
}

// login reads the handshake response.
func (s *mysqlServer) login(w *mysqlWire) (user string, answer []byte, method string, err error) {
	p, err := w.receive()
	if err != nil {
		return "", nil, "", err
	}
	if len(p) < 34 {
		return "", nil, "", errors.New("short")
	}
	name, rest, ok := bytes.Cut(p[32:], []byte{0})
	if !ok || len(rest) < 1 || len(rest) < 1+int(rest[0]) {
		return "", nil, "", errors.New("short")
	}
	answer, rest = rest[1:1+rest[0]], rest[1+rest[0]:]
	m, _, _ := bytes.Cut(rest, []byte{0})
	return string(name), answer, string(m), nil
}

// accepts reports whether answer is correct, from the hash of the password that MySQL stores.
func (s *mysqlServer) accepts(w *mysqlWire, answer []byte) bool {
	switch s.method {
	case "mysql_native_password":
		if s.password == "" {
			return len(answer) == 0
		}
		stored := sha1.Sum(sum(sha1.Sum([]byte(s.password))))
		mask := sha1.Sum(append([]byte(nonce), stored[:]...))
		return len(answer) == 20 && sha1.Sum(xor(answer, mask[:])) == stored
	case "caching_sha2_password":
		if s.password == "" {
			return len(answer) == 0
		}
		stored := sha256.Sum256(sum(sha256.Sum256([]byte(s.password))))
		mask := sha256.Sum256(append(stored[:], nonce...))
		if s.cached {
			if len(answer) != 32 || sha256.Sum256(xor(answer, mask[:])) != stored {
				return false
			}
			w.send([]byte{1, 3})
			return true
		}
		w.send([]byte{1, 4})
		if p, err := w.receive(); err != nil || !bytes.Equal(p, []byte{2}) {
			return false
		}
		return s.acceptsEncrypted(w)
	case "client_ed25519":
		// The public key of a password of 32 bytes is that of the standard's seed.
		public := ed25519.NewKeyFromSeed([]byte(s.password)).Public().(ed25519.PublicKey)
		return ed25519.Verify(public, []byte(s.nonce), answer)
	case "sha256_password":
		return bytes.Equal(answer, []byte{1}) && s.acceptsEncrypted(w)
	}
	return false
}

// acceptsEncrypted sends the public key and compares the password in the client's answer.
func (s *mysqlServer) acceptsEncrypted(w *mysqlWire) bool {
	der, err := x509.MarshalPKIXPublicKey(s.key.Public())
	if err != nil {
		return false
	}
	w.send(append([]byte{1}, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})...))
	secret, err := w.receive()
	if err != nil {
		return false
	}
	plain, err := rsa.DecryptOAEP(sha1.New(), nil, s.key, secret, nil)
	if err != nil {
		return false
	}
	for i := range plain {
		plain[i] ^= nonce[i%len(nonce)]
	}
	return string(plain) == s.password+"\x00"
}

// sum returns a hash as a slice.
func sum[A [20]byte | [32]byte](a A) []byte {
	switch a := any(a).(type) {
	case [20]byte:
		return a[:]
	case [32]byte:
		return a[:]
	}
	return nil
}

func xor(a, b []byte) []byte {
	out := make([]byte, len(a))
	for i := range a {
		out[i] = a[i] ^ b[i]
	}
	return out
}

// mysqlServers returns a server for each way of a login, except those of MariaDB.
func mysqlServers(t testing.TB) map[string]*mysqlServer {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	// The password is longer than the nonce, so that the xor repeats the nonce.
	const password = "s3cret and rather longer than twenty bytes"
	return map[string]*mysqlServer{
		"native":                  {defaultMethod: "mysql_native_password", method: "mysql_native_password", user: "operator", password: password},
		"native, no password":     {defaultMethod: "mysql_native_password", method: "mysql_native_password", user: "operator"},
		"native, but sha2 is met": {defaultMethod: "caching_sha2_password", method: "mysql_native_password", user: "operator", password: password},
		"sha2, remembered":        {defaultMethod: "caching_sha2_password", method: "caching_sha2_password", user: "operator", password: password, cached: true},
		"sha2, full":              {defaultMethod: "caching_sha2_password", method: "caching_sha2_password", user: "operator", password: password, key: key},
		"sha2, no password":       {defaultMethod: "caching_sha2_password", method: "caching_sha2_password", user: "operator"},
		"sha2 after native":       {defaultMethod: "mysql_native_password", method: "caching_sha2_password", user: "operator", password: password, key: key},
		"sha256":                  {defaultMethod: "sha256_password", method: "sha256_password", user: "operator", password: password, key: key},
		"ed25519":                 {defaultMethod: "mysql_native_password", method: "client_ed25519", user: "operator", password: password[:32], nonce: strings.Repeat("n", 32)},
		// 1 of 256 nonces of MariaDB ends in 0. Then the login failed when that was cut off.
		"ed25519, nonce ends in 0": {defaultMethod: "mysql_native_password", method: "client_ed25519", user: "operator", password: password[:32], nonce: strings.Repeat("n", 31) + "\x00"},
		"after one of the future":  {defaultMethod: "authentication_of_tomorrow", method: "caching_sha2_password", user: "operator", password: password, cached: true},
	}
}
