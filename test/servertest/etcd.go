package servertest

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// FindEtcd returns the path of the etcd that the tests run: the environment variable ETCD, or the installed one if the
// variable is not set.
func FindEtcd(t testing.TB) string {
	t.Helper()
	return findVariant(t, "ETCD", "etcd", "etcd", "etcd-server")
}

// EtcdServer is one member of an etcd cluster. Its port and directory stay the same over Stop and Restart.
type EtcdServer struct {
	Name   string
	URL    string // for clients
	Dir    string // of the member; its data is in Dir/data
	Port   uint16
	Others []*EtcdServer // the other members of its cluster

	t     testing.TB
	path  string
	place etcdPlace
	peer  string // URL for the other members
	args  []string
	log   output
	cmd   *exec.Cmd
	done  chan struct{}
}

type etcdOptions struct {
	args        []string
	members     int
	certificate *tls.Certificate
	clientCA    *x509.Certificate
	place       func(i int) etcdPlace // of member i; nil: this machine
}

// etcdPlace is where a member runs.
type etcdPlace struct {
	host    string   // its IP address
	command []string // the beginning of a command that runs there; nil for this machine
}

// EtcdOption is an option of Etcd.
type EtcdOption func(*etcdOptions)

// EtcdArgs adds arguments of the etcd program, for example "--auth-token-ttl", "2".
func EtcdArgs(args ...string) EtcdOption {
	return func(o *etcdOptions) { o.args = append(o.args, args...) }
}

// EtcdMembers makes a cluster of n members.
func EtcdMembers(n int) EtcdOption { return func(o *etcdOptions) { o.members = n } }

// EtcdTLS makes the endpoints speak TLS with a certificate. If clientCA is not nil, they require client certificates of
// that authority.
func EtcdTLS(certificate tls.Certificate, clientCA *x509.Certificate) EtcdOption {
	return func(o *etcdOptions) { o.certificate, o.clientCA = &certificate, clientCA }
}

// Etcd starts etcd and returns its first member when the cluster has a leader.
func Etcd(t testing.TB, options ...EtcdOption) *EtcdServer {
	t.Helper()
	o := etcdOptions{members: 1}
	for _, option := range options {
		option(&o)
	}
	path := FindEtcd(t)
	var err error
	for range startTries {
		var members []*EtcdServer
		if members, err = newEtcdMembers(t, path, &o); err != nil {
			t.Fatal(err)
		}
		for _, m := range members {
			if err = m.start(); err != nil {
				break
			}
		}
		for _, m := range members {
			if err == nil {
				err = m.waitReady()
			}
		}
		if err == nil {
			return members[0]
		}
		for _, m := range members {
			m.end(syscall.SIGKILL)
		}
	}
	t.Fatalf("start etcd: %v", err)
	return nil
}

// newEtcdMembers prepares the members of a cluster. Their processes do not run yet.
func newEtcdMembers(t testing.TB, path string, o *etcdOptions) ([]*EtcdServer, error) {
	var members []*EtcdServer
	var cluster []string
	scheme := "http"
	if o.certificate != nil {
		scheme = "https"
	}
	for i := range o.members {
		port, err := FreePort()
		if err != nil {
			return nil, err
		}
		peer, err := FreePort()
		if err != nil {
			return nil, err
		}
		place := etcdPlace{host: Host}
		if o.place != nil {
			place = o.place(i)
		}
		m := &EtcdServer{
			Name: fmt.Sprintf("m%d", i+1), Port: port, Dir: tempDir(t), t: t, path: path, place: place,
			peer: "http://" + net.JoinHostPort(place.host, fmt.Sprint(peer)),
		}
		m.URL = scheme + "://" + m.Addr()
		members = append(members, m)
		cluster = append(cluster, m.Name+"="+m.peer)
	}
	token := fmt.Sprintf("test-%d", members[0].Port)
	for i, m := range members {
		m.args = []string{
			"--name", m.Name, "--data-dir", filepath.Join(m.Dir, "data"), "--listen-client-urls", m.URL, "--advertise-client-urls", m.URL,
			"--listen-peer-urls", m.peer, "--initial-advertise-peer-urls", m.peer, "--initial-cluster", strings.Join(cluster, ","),
			"--initial-cluster-token", token, "--initial-cluster-state", "new", "--logger", "zap", "--log-level", "warn",
		}
		if o.certificate != nil {
			cert, key, err := writeCertificate(m.Dir, *o.certificate)
			if err != nil {
				return nil, err
			}
			m.args = append(m.args, "--cert-file", cert, "--key-file", key)
		}
		if o.clientCA != nil {
			ca := filepath.Join(m.Dir, "client-ca.pem")
			if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: o.clientCA.Raw}), 0o600); err != nil {
				return nil, err
			}
			m.args = append(m.args, "--client-cert-auth", "--trusted-ca-file", ca)
		}
		m.args = append(m.args, o.args...)
		for j, other := range members {
			if i != j {
				m.Others = append(m.Others, other)
			}
		}
		t.Cleanup(func() { m.end(syscall.SIGTERM) })
	}
	return members, nil
}

func (s *EtcdServer) start() error {
	program := append(slices.Clone(s.place.command), s.path)
	s.cmd = command(program[0], append(program[1:], s.args...), s.Dir)
	s.cmd.Stdout, s.cmd.Stderr = &s.log, &s.log
	s.cmd.SysProcAttr = processGroup()
	if err := s.cmd.Start(); err != nil {
		return err
	}
	done := make(chan struct{})
	s.done = done
	go func(cmd *exec.Cmd) {
		_ = cmd.Wait()
		close(done)
	}(s.cmd)
	return nil
}

// waitReady returns when the member accepts connections. It listens for clients once it has joined a cluster with a
// leader.
func (s *EtcdServer) waitReady() error {
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	again := time.NewTicker(10 * time.Millisecond)
	defer again.Stop()
	for {
		conn, err := net.DialTimeout("tcp", s.Addr(), time.Second)
		if err == nil {
			return conn.Close()
		}
		select {
		case <-s.done:
			return fmt.Errorf("etcd ended at once (%v):\n%s", s.cmd.ProcessState, s.Log())
		case <-ctx.Done():
			return fmt.Errorf("etcd is not ready after %v: %w\n%s", startTimeout, err, s.Log())
		case <-again.C:
		}
	}
}

// Addr returns host and port of the client URL.
func (s *EtcdServer) Addr() string { return net.JoinHostPort(s.place.host, fmt.Sprint(s.Port)) }

// Log returns what the member has written to stdout and stderr so far.
func (s *EtcdServer) Log() string { return s.log.String() }

// Members returns all members of the cluster, this one first.
func (s *EtcdServer) Members() []*EtcdServer { return append([]*EtcdServer{s}, s.Others...) }

// URLs returns the client URLs of all members.
func (s *EtcdServer) URLs() []string {
	var urls []string
	for _, m := range s.Members() {
		urls = append(urls, m.URL)
	}
	return urls
}

// Stop ends the member with SIGTERM and waits for it.
func (s *EtcdServer) Stop() { s.end(syscall.SIGTERM) }

// Kill ends the member with SIGKILL and waits for it.
func (s *EtcdServer) Kill() { s.end(syscall.SIGKILL) }

// Pause stops the process with SIGSTOP: connections stay open and get no answer.
func (s *EtcdServer) Pause() { s.signal(syscall.SIGSTOP) }

// Resume continues a paused process.
func (s *EtcdServer) Resume() { s.signal(syscall.SIGCONT) }

func (s *EtcdServer) signal(signal syscall.Signal) {
	if err := syscall.Kill(-s.cmd.Process.Pid, signal); err != nil {
		s.t.Errorf("send %v to etcd: %v", signal, err)
	}
}

// Restart ends the member if it runs, and starts it on the same port with the same directory. It returns when the
// member accepts connections.
func (s *EtcdServer) Restart() {
	s.t.Helper()
	s.Stop()
	s.Start()
}

// Start starts a member that was ended, and returns when it accepts connections.
func (s *EtcdServer) Start() {
	s.t.Helper()
	err := s.start()
	if err == nil {
		err = s.waitReady()
	}
	if err != nil {
		s.t.Fatalf("start etcd again: %v", err)
	}
}

// Wipe ends the member and removes its data. After Start, a cluster of one member is empty and has the same id.
func (s *EtcdServer) Wipe() {
	s.t.Helper()
	s.Kill()
	if err := os.RemoveAll(filepath.Join(s.Dir, "data")); err != nil {
		s.t.Fatal(err)
	}
}

// Replace is Wipe with another cluster token: after Start, the cluster has another id.
func (s *EtcdServer) Replace() {
	s.t.Helper()
	s.Wipe()
	for i, arg := range s.args {
		if arg == "--initial-cluster-token" {
			s.args[i+1] += "-replaced"
		}
	}
}

// AddLearner starts a learner of the cluster: a member that does not vote and answers no linearizable read. The cluster
// must not use TLS.
func (s *EtcdServer) AddLearner() *EtcdServer {
	s.t.Helper()
	learners, err := newEtcdMembers(s.t, s.path, &etcdOptions{members: 1})
	if err != nil {
		s.t.Fatal(err)
	}
	l := learners[0]
	l.Name = "learner"
	s.Ctl("member", "add", l.Name, "--learner", "--peer-urls", l.peer)
	cluster := l.Name + "=" + l.peer
	for _, m := range s.Members() {
		cluster += "," + m.Name + "=" + m.peer
	}
	l.args = append(l.args, "--name", l.Name, "--initial-cluster", cluster, "--initial-cluster-state", "existing")
	l.Others = s.Members()
	l.Start()
	return l
}

// ClusterFlags returns the flags of `etcdctl snapshot restore` for this member of a cluster of one.
func (s *EtcdServer) ClusterFlags() []string {
	var flags []string
	for i, arg := range s.args {
		switch arg {
		case "--name", "--initial-cluster", "--initial-cluster-token", "--initial-advertise-peer-urls":
			flags = append(flags, arg, s.args[i+1])
		}
	}
	return flags
}

// Ctl runs etcdctl against this member and returns its output. The test fails if the command does.
func (s *EtcdServer) Ctl(args ...string) string {
	s.t.Helper()
	cmd := command(Find(s.t, "etcdctl", "etcd-client"), append([]string{"--endpoints", s.URL}, args...), s.Dir)
	cmd.Env = append(cmd.Env, "ETCDCTL_API=3")
	out, err := cmd.CombinedOutput()
	if err != nil {
		s.t.Fatalf("etcdctl %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// end ends the process with a signal, after 10 s with SIGKILL. It does nothing if the process does not run.
func (s *EtcdServer) end(signal syscall.Signal) {
	if s.done == nil {
		return
	}
	select {
	case <-s.done:
		return
	default:
	}
	_ = syscall.Kill(-s.cmd.Process.Pid, signal)
	_ = syscall.Kill(-s.cmd.Process.Pid, syscall.SIGCONT) // a paused process
	timeout := time.NewTimer(stopTimeout)
	defer timeout.Stop()
	select {
	case <-s.done:
	case <-timeout.C:
	}
	if err := syscall.Kill(-s.cmd.Process.Pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
		s.t.Errorf("kill etcd: %v", err)
	}
	<-s.done
}
