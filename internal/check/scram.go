package check

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"encoding/base64"
	"encoding/binary"
	"hash"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
)

// scram is the client's part of a login by SCRAM (RFC 5802, 7677), for PostgreSQL and MongoDB. The server never
// learns the password and proves that it knows it. There is no channel binding, because no server requires it.
type scram struct {
	hash            func() hash.Hash
	password        string // after SASLprep
	nonce           string
	clientFirstBare string // the client's first message without its header
	serverSignature []byte // that the server must send
}

// newSCRAM begins a login. The caller has prepared the password, see saslPrep.
func newSCRAM(h func() hash.Hash, username, password string) *scram {
	s := &scram{hash: h, password: password, nonce: rand.Text()}
	s.clientFirstBare = "n=" + strings.NewReplacer("=", "=3D", ",", "=2C").Replace(username) + ",r=" + s.nonce
	return s
}

// clientFirst returns the client's first message.
func (s *scram) clientFirst() string { return "n,," + s.clientFirstBare }

// clientFinal returns the client's last message, the answer to the server's first. The server chooses how often the
// password is hashed, so clientFinal returns an error when ctx ends.
func (s *scram) clientFinal(ctx context.Context, serverFirst string) (string, error) {
	fields := strings.Split(serverFirst, ",")
	if len(fields) < 3 || !strings.HasPrefix(fields[0], "r="+s.nonce) || len(fields[0]) <= len("r="+s.nonce) ||
		!strings.HasPrefix(fields[1], "s=") || !strings.HasPrefix(fields[2], "i=") {
		return "", malformed("an invalid SCRAM message")
	}
	salt, err := base64.StdEncoding.DecodeString(fields[1][2:])
	if err != nil {
		return "", malformed("an invalid SCRAM salt")
	}
	rounds, err := strconv.ParseUint(fields[2][2:], 10, 31)
	if err != nil || rounds < 1 {
		return "", malformed("an invalid SCRAM iteration count")
	}
	salted, err := s.saltedPassword(ctx, salt, rounds)
	if err != nil {
		return "", err
	}
	final := "c=biws," + fields[0] // base64 of "n,,", and the nonce
	message := s.clientFirstBare + "," + serverFirst + "," + final
	clientKey := s.hmac(salted, "Client Key")
	h := s.hash()
	h.Write(clientKey)
	proof := s.hmac(h.Sum(nil), message)
	for i := range proof {
		proof[i] ^= clientKey[i]
	}
	s.serverSignature = s.hmac(s.hmac(salted, "Server Key"), message)
	return final + ",p=" + base64.StdEncoding.EncodeToString(proof), nil
}

// verifyServerFinal returns an error unless the server's last message proves that it knows the password.
func (s *scram) verifyServerFinal(serverFinal string) error {
	field, _, _ := strings.Cut(serverFinal, ",")
	signature, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(field, "v="))
	if err != nil || len(s.serverSignature) == 0 || !hmac.Equal(signature, s.serverSignature) {
		return errServerUnverified
	}
	return nil
}

// saltedPassword returns the first block of PBKDF2 (RFC 8018), the only one that SCRAM uses. The standard library's
// PBKDF2 cannot be cancelled, and a server may ask for 2^31 iterations.
func (s *scram) saltedPassword(ctx context.Context, salt []byte, rounds uint64) ([]byte, error) {
	mac := hmac.New(s.hash, []byte(s.password))
	mac.Write(salt)
	mac.Write(binary.BigEndian.AppendUint32(nil, 1))
	u := mac.Sum(nil)
	sum := append([]byte(nil), u...)
	for i := uint64(1); i < rounds; i++ {
		if i%1024 == 0 && ctx.Err() != nil {
			return nil, ctx.Err()
		}
		mac.Reset()
		mac.Write(u)
		u = mac.Sum(u[:0])
		for j := range sum {
			sum[j] ^= u[j]
		}
	}
	return sum, nil
}

func (s *scram) hmac(key []byte, message string) []byte {
	mac := hmac.New(s.hash, key)
	mac.Write([]byte(message))
	return mac.Sum(nil)
}

// saslPrep normalizes a password by SASLprep (RFC 4013). It returns a password with a forbidden character unchanged,
// as PostgreSQL does.
func saslPrep(password string) string {
	if !utf8.ValidString(password) || strings.ContainsFunc(password, func(r rune) bool {
		return unicode.IsControl(r) || unicode.In(r, unicode.Co, unicode.Cs) || r == utf8.RuneError
	}) {
		return password
	}
	return norm.NFKC.String(strings.Map(func(r rune) rune {
		switch {
		case r > unicode.MaxASCII && unicode.Is(unicode.Zs, r):
			return ' '
		case r == 0xad, r == 0x34f, r == 0x1806, 0x180b <= r && r <= 0x180d, 0x200b <= r && r <= 0x200d, r == 0x2060,
			0xfe00 <= r && r <= 0xfe0f, r == 0xfeff:
			return -1 // invisible
		}
		return r
	}, password))
}
