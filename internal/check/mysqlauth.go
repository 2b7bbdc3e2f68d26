package check

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1" //nolint:gosec // the protocol's
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"encoding/pem"
	"slices"

	"filippo.io/edwards25519"
)

// authResponse returns the response of a method to nonce. It is empty for an empty password.
func (l mysqlLogin) authResponse(method string, nonce []byte) ([]byte, error) {
	switch method {
	case "mysql_native_password", "":
		return scrambleNative(l.password, nonce), nil
	case "caching_sha2_password":
		return scrambleSHA2(l.password, nonce), nil
	case "sha256_password":
		if l.password == "" {
			return []byte{0}, nil
		}
		return []byte{sha256RequestKey}, nil
	case "client_ed25519":
		return signEd25519(l.password, nonce)
	case "mysql_clear_password", "dialog":
		return nil, malformed("it wants the password in clear (%s)", method)
	}
	return nil, malformed("it wants an authentication method that is not known here: %s", excerpt(method, 40))
}

// moreData returns the response to a packet of more authentication data, nil for no response.
func (l mysqlLogin) moreData(method string, nonce, data []byte) ([]byte, error) {
	switch {
	case method == "caching_sha2_password" && len(data) == 1 && data[0] == sha2Fast:
		return nil, nil
	case method == "caching_sha2_password" && len(data) == 1 && data[0] == sha2Full:
		return []byte{sha2RequestKey}, nil
	case method == "caching_sha2_password", method == "sha256_password":
		return encryptPassword(l.password, nonce, data)
	}
	return nil, malformed("more data than the method has")
}

// scrambleNative returns SHA1(password) xor SHA1(nonce, SHA1(SHA1(password))).
func scrambleNative(password Secret, nonce []byte) []byte {
	if password == "" {
		return nil
	}
	once := sha1.Sum([]byte(password))                    //nolint:gosec // the protocol's
	twice := sha1.Sum(once[:])                            //nolint:gosec // the protocol's
	mask := sha1.Sum(append(first20(nonce), twice[:]...)) //nolint:gosec // the protocol's
	for i := range once {
		once[i] ^= mask[i]
	}
	return once[:]
}

// scrambleSHA2 returns SHA256(password) xor SHA256(SHA256(SHA256(password)), nonce).
func scrambleSHA2(password Secret, nonce []byte) []byte {
	if password == "" {
		return nil
	}
	once := sha256.Sum256([]byte(password))
	twice := sha256.Sum256(once[:])
	mask := sha256.Sum256(append(twice[:], first20(nonce)...))
	for i := range once {
		once[i] ^= mask[i]
	}
	return once[:]
}

// first20 returns a copy of the part of a nonce that the scrambles use.
func first20(nonce []byte) []byte { return slices.Clone(nonce[:min(20, len(nonce))]) }

// encryptPassword returns the password, followed by a 0 and xored with the nonce, encrypted for an RSA key in PEM.
func encryptPassword(password Secret, nonce, key []byte) ([]byte, error) {
	block, _ := pem.Decode(key)
	if block == nil || len(nonce) == 0 {
		return nil, malformed("an invalid public key")
	}
	public, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		return nil, malformed("an invalid public key")
	}
	rsaKey, ok := public.(*rsa.PublicKey)
	if !ok {
		return nil, malformed("a key that is not RSA")
	}
	plain := append([]byte(password), 0)
	for i := range plain {
		plain[i] ^= nonce[i%min(20, len(nonce))]
	}
	secret, err := rsa.EncryptOAEP(sha1.New(), rand.Reader, rsaKey, plain, nil) //nolint:gosec // the protocol's hash
	if err != nil {
		return nil, malformed("an unusable public key: %s", excerpt(err.Error(), 100))
	}
	return secret, nil
}

// signEd25519 returns MariaDB's signature of the nonce. It is Ed25519 with the password instead of the seed.
// crypto/ed25519 cannot make it, because a password has any length.
func signEd25519(password Secret, nonce []byte) ([]byte, error) {
	if len(nonce) != 32 {
		return nil, malformed("a nonce of the wrong length")
	}
	hash := sha512.Sum512([]byte(password))
	private, err := edwards25519.NewScalar().SetBytesWithClamping(hash[:32])
	if err != nil {
		return nil, err
	}
	public := new(edwards25519.Point).ScalarBaseMult(private).Bytes()
	r, err := hashToScalar(hash[32:], nonce)
	if err != nil {
		return nil, err
	}
	commitment := new(edwards25519.Point).ScalarBaseMult(r).Bytes()
	k, err := hashToScalar(commitment, public, nonce)
	if err != nil {
		return nil, err
	}
	return append(commitment, edwards25519.NewScalar().MultiplyAdd(k, private, r).Bytes()...), nil
}

func hashToScalar(parts ...[]byte) (*edwards25519.Scalar, error) {
	hash := sha512.Sum512(slices.Concat(parts...))
	return edwards25519.NewScalar().SetUniformBytes(hash[:])
}
