package check

import (
	"cmp"
	"crypto/md5" //nolint:gosec // the protocol's
	"crypto/rand"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// challenge is one authentication scheme that a server offers in WWW-Authenticate (RFC 9110, 11.6.1).
type challenge struct {
	scheme string            // in lower case
	params map[string]string // names in lower case, values without their quotes
}

// parseChallenges parses one value of the header, which may contain several challenges. It stops at a syntax error.
func parseChallenges(text string) []challenge {
	var list []challenge
	for {
		text = strings.TrimLeft(text, " \t,")
		name := token(text)
		if name == "" {
			return list
		}
		text = strings.TrimLeft(text[len(name):], " \t")
		if !strings.HasPrefix(text, "=") || len(list) == 0 {
			list = append(list, challenge{strings.ToLower(name), map[string]string{}})
			if next := token(text); next != "" && !isParameterValue(text[len(next):]) {
				_, text, _ = strings.Cut(text, ",") // one token68 instead of parameters, as in Negotiate
			}
			continue
		}
		value, rest, ok := parameterValue(strings.TrimLeft(text[1:], " \t"))
		if !ok {
			return list
		}
		text = rest
		params := list[len(list)-1].params
		if _, again := params[strings.ToLower(name)]; !again {
			params[strings.ToLower(name)] = value
		}
	}
}

// isParameterValue reports whether s, the text after a name, begins with "=" and a value.
func isParameterValue(s string) bool {
	value, ok := strings.CutPrefix(strings.TrimLeft(s, " \t"), "=")
	value = strings.TrimLeft(value, " \t")
	return ok && value != "" && value[0] != '=' && value[0] != ','
}

// token returns the token (RFC 9110, 5.6.2) at the beginning of s, "" if there is none.
func token(s string) string {
	for i := range len(s) {
		if !validName(s[i : i+1]) {
			return s[:i]
		}
	}
	return s
}

// parameterValue parses a token or a quoted string at the beginning of s and returns the rest of s.
func parameterValue(s string) (value, rest string, ok bool) {
	if !strings.HasPrefix(s, `"`) {
		value = token(s)
		return value, s[len(value):], value != ""
	}
	var b strings.Builder
	for i := 1; i < len(s); i++ {
		switch {
		case s[i] == '"':
			return b.String(), s[i+1:], true
		case s[i] == '\\' && i+1 < len(s):
			i++
		}
		b.WriteByte(s[i])
	}
	return "", "", false
}

// digestHashes are the supported algorithms, the best first, each also with the suffix -sess.
var digestHashes = []struct {
	name string
	hash func(text string) string
}{
	{"SHA-256", func(text string) string { sum := sha256.Sum256([]byte(text)); return hex.EncodeToString(sum[:]) }},
	{"SHA-512-256", func(text string) string { sum := sha512.Sum512_256([]byte(text)); return hex.EncodeToString(sum[:]) }},
	{"MD5", func(text string) string { sum := md5.Sum([]byte(text)); return hex.EncodeToString(sum[:]) }}, //nolint:gosec // the protocol's
}

// clientNonce returns a new client nonce.
func clientNonce() string {
	var random [16]byte
	_, _ = rand.Read(random[:]) // never fails
	return hex.EncodeToString(random[:])
}

// digestRequest is the request that a digest is for.
type digestRequest struct {
	method, uri, body string
	nonce             string // the client's
}

// digestAuthorization returns the Authorization header for the best of the challenges (RFC 7616).
//
// It is not done by icholy/digest, because a check must log in wherever curl does. That library takes no list of
// challenges in one header, no name of a parameter in upper case, no -sess and no space in qop="auth-int, auth", and it
// writes a realm in ISO-8859-1 as an escape sequence of Go. What it could replace are the last 30 lines of this file.
func (c *credentials) digestAuthorization(values []string, r digestRequest) (string, error) {
	var offered []challenge
	for _, v := range values {
		offered = append(offered, parseChallenges(v)...)
	}
	for _, h := range digestHashes {
		for _, o := range offered {
			algorithm, session := strings.CutSuffix(strings.ToUpper(cmp.Or(o.params["algorithm"], "MD5")), "-SESS")
			if o.scheme == "digest" && algorithm == h.name {
				return c.digest(o, h.hash, session, r)
			}
		}
	}
	return "", errors.New("it asks for no digest authentication with MD5, SHA-256 or SHA-512-256")
}

// isStale reports whether a challenge says that the digest was right, but its nonce too old. The client then answers the
// new one.
func isStale(values []string) bool {
	for _, v := range values {
		for _, o := range parseChallenges(v) {
			if o.scheme == "digest" && strings.EqualFold(o.params["stale"], "true") {
				return true
			}
		}
	}
	return false
}

// digest returns the Authorization header for one challenge. session says that its algorithm has the suffix -sess.
func (c *credentials) digest(o challenge, hash func(string) string, session bool, r digestRequest) (string, error) {
	realm, serverNonce := o.params["realm"], o.params["nonce"]
	key := hash(c.user + ":" + realm + ":" + string(c.password))
	if session {
		key = hash(key + ":" + serverNonce + ":" + r.nonce)
	}
	request := r.method + ":" + r.uri
	user, hashed := c.user, strings.EqualFold(o.params["userhash"], "true")
	if hashed {
		user = hash(c.user + ":" + realm)
	}
	text := fmt.Sprintf("Digest username=%s, realm=%s, nonce=%s, uri=%s", quotedString(user), quotedString(realm), quotedString(serverNonce), quotedString(r.uri))
	if algorithm := o.params["algorithm"]; algorithm != "" {
		text += ", algorithm=" + algorithm
	}
	list := strings.TrimSpace(o.params["qop"])
	offered := list != ""
	has := func(qop string) bool {
		return slices.ContainsFunc(strings.Split(list, ","), func(q string) bool { return strings.EqualFold(strings.TrimSpace(q), qop) })
	}
	qop := "auth"
	switch {
	case has("auth"):
	case has("auth-int"):
		qop, request = "auth-int", request+":"+hash(r.body)
	case offered:
		return "", errors.New("it asks for a digest of neither the request nor its body")
	}
	if offered {
		const count = "00000001" // each client nonce is used once
		text += ", qop=" + qop + ", nc=" + count + ", cnonce=" + quotedString(r.nonce)
		text += ", response=" + quotedString(hash(key+":"+serverNonce+":"+count+":"+r.nonce+":"+qop+":"+hash(request)))
	} else { // the format before RFC 2617
		if session {
			text += ", cnonce=" + quotedString(r.nonce)
		}
		text += ", response=" + quotedString(hash(key+":"+serverNonce+":"+hash(request)))
	}
	if opaque, ok := o.params["opaque"]; ok {
		text += ", opaque=" + quotedString(opaque)
	}
	if hashed {
		text += ", userhash=true"
	}
	return text, nil
}

// quotedString returns s as a quoted string.
func quotedString(s string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(s) + `"`
}
