// Package certificate keeps the certificate of a TLS listener as its files are: it reads them again when they change, and
// keeps the last good ones while they are not usable. It opens no port.
package certificate

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"syscall"
	"time"
)

// Files are the files of a certificate, in PEM. The zero value is no certificate.
type Files struct {
	Cert     string // with the intermediate certificates
	Key      string
	ClientCA string // "": clients need no certificate
}

// The keys of the configuration, for messages.
const (
	certKey = "tls_cert_file"
	keyKey  = "tls_key_file"
	caKey   = "tls_client_ca_file"
)

// maxFile bounds a file, in bytes.
const maxFile = 1 << 20

// Pair is a certificate that was read as a whole: certificate, key and the authorities of clients belong together.
type Pair struct {
	files   Files
	stamp   stamp // of the files, from before they were read
	config  *tls.Config
	expires time.Time
}

// Expires returns when the first of the certificate and its intermediates in the file expires.
func (p *Pair) Expires() time.Time { return p.expires }

// Read reads the files. Its error names the key of the configuration and the file, and shows no content.
func Read(f Files) (*Pair, error) {
	p := &Pair{files: f, stamp: stampOf(f)}
	cert, err := readCertificates(certKey, f.Cert)
	if err != nil {
		return nil, err
	}
	key, err := readFile(keyKey, f.Key)
	if err != nil {
		return nil, err
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return nil, fmt.Errorf("%s %s, %s %s: %w", certKey, f.Cert, keyKey, f.Key, err)
	}
	for _, der := range pair.Certificate {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, fmt.Errorf("%s %s: %w", certKey, f.Cert, err)
		}
		if p.expires.IsZero() || c.NotAfter.Before(p.expires) {
			p.expires = c.NotAfter
		}
	}
	p.config = &tls.Config{
		Certificates: []tls.Certificate{pair},
		MinVersion:   tls.VersionTLS12,
		NextProtos:   []string{"h2", "http/1.1"},
	}
	if f.ClientCA != "" {
		ca, err := readCertificates(caKey, f.ClientCA)
		if err != nil {
			return nil, err
		}
		p.config.ClientCAs = x509.NewCertPool()
		if !p.config.ClientCAs.AppendCertsFromPEM(ca) {
			return nil, fmt.Errorf("%s %s: no certificate in it", caKey, f.ClientCA)
		}
		p.config.ClientAuth = tls.RequireAndVerifyClientCert
	}
	return p, nil
}

// readCertificates is readFile for a file of certificates.
func readCertificates(key, path string) ([]byte, error) {
	data, err := readFile(key, path)
	if err != nil {
		return nil, err
	}
	if err := CheckPEM(data); err != nil {
		return nil, fmt.Errorf("%s: read %s: %w", key, path, err)
	}
	return data, nil
}

// CheckPEM returns an error if a block of text is cut off or damaged, as after a copy that has filled the disk. The
// standard library ignores such a block, and would use a part of a chain, or of the authorities.
func CheckPEM(text []byte) error {
	whole := 0
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		whole++
	}
	if begun := bytes.Count(text, []byte("-----BEGIN")); begun > whole {
		return fmt.Errorf("%d of %d PEM blocks cannot be read; copy the whole file again", begun-whole, begun)
	}
	return nil
}

// readFile reads a regular file of at most maxFile bytes.
func readFile(key, path string) ([]byte, error) {
	data, err := func() ([]byte, error) {
		f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0) // the open of a pipe would wait for its writer
		if err != nil {
			return nil, err
		}
		defer func() { _ = f.Close() }()
		if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
			return nil, errors.Join(err, fmt.Errorf("open %s: not a regular file", path))
		}
		data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
		if len(data) > maxFile {
			return nil, fmt.Errorf("read %s: larger than %d bytes", path, maxFile)
		}
		return data, err
	}()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", key, err)
	}
	return data, nil
}

// stamp tells whether files have changed. A link that leads to another file counts as a change.
type stamp [3]fileStamp

type fileStamp struct {
	modified time.Time
	size     int64
	info     os.FileInfo // for os.SameFile; nil if the file is not there
}

func stampOf(f Files) (s stamp) {
	for i, path := range []string{f.Cert, f.Key, f.ClientCA} {
		if path == "" {
			continue
		}
		if info, err := os.Stat(path); err == nil {
			s[i] = fileStamp{info.ModTime(), info.Size(), info}
		}
	}
	return s
}

func (s stamp) equal(t stamp) bool {
	for i := range s {
		a, b := s[i], t[i]
		if !a.modified.Equal(b.modified) || a.size != b.size || (a.info == nil) != (b.info == nil) ||
			a.info != nil && !os.SameFile(a.info, b.info) {
			return false
		}
	}
	return true
}

// Store has the certificate in force. It is safe for concurrent use. Its zero value has none.
type Store struct {
	mu    sync.Mutex
	pair  *Pair
	tried stamp // of the files as they were last read
	err   error // why the files cannot be used as they are now
}

// Status is what a Store has.
type Status struct {
	Expires time.Time // zero: there is no certificate
	Err     error     // why the files cannot be used as they are now, and an older certificate is in force; nil if they can
}

// Status returns what is in force.
func (s *Store) Status() Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.pair == nil {
		return Status{}
	}
	return Status{s.pair.expires, s.err}
}

// Use puts p in force for the handshakes from now on; nil is no certificate.
func (s *Store) Use(p *Pair) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if p == s.pair {
		return // with the error of the files
	}
	s.pair, s.err = p, nil
	if p != nil {
		s.tried = p.stamp
	}
}

// ReadAgain reads f, which a reload of the configuration names. If f cannot be used and are the files in force, it returns
// the certificate in force with the error: an error with a certificate keeps the old one.
func (s *Store) ReadAgain(f Files) (*Pair, error) {
	tried := stampOf(f)
	p, err := Read(f)
	s.mu.Lock()
	defer s.mu.Unlock()
	if err == nil || s.pair == nil || s.pair.files != f {
		return p, err
	}
	s.tried, s.err = tried, err
	return s.pair, err
}

// Config returns a configuration of TLS that uses what is in force at each handshake.
func (s *Store) Config() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS12,
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
			s.mu.Lock()
			defer s.mu.Unlock()
			if s.pair == nil {
				return nil, errors.New("there is no certificate")
			}
			return s.pair.config, nil
		},
	}
}

// Watch looks at the files each interval until stop is closed. It reads them when they have changed and have then
// stayed as they are for one interval, because programs replace the two files one after the other. It calls
// onChange with the error, or nil if what was read is in force.
func (s *Store) Watch(stop <-chan struct{}, interval time.Duration, onChange func(error)) {
	tick := time.NewTicker(interval)
	defer tick.Stop()
	var last stamp
	for {
		select {
		case <-stop:
			return
		case <-tick.C:
		}
		s.mu.Lock()
		pair, tried := s.pair, s.tried
		s.mu.Unlock()
		if pair == nil {
			continue
		}
		now := stampOf(pair.files)
		changed, settled := !now.equal(tried), now.equal(last)
		if last = now; !changed || !settled {
			continue
		}
		onChange(s.replace(pair))
	}
}

// replace reads the files of old, and puts them in force unless another certificate was put in force meanwhile.
func (s *Store) replace(old *Pair) error {
	tried := stampOf(old.files)
	p, err := Read(old.files)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.pair != old {
		return nil // a reload has read them
	}
	s.tried, s.err = tried, err
	if err == nil {
		s.pair, s.tried = p, p.stamp
	}
	return err
}
