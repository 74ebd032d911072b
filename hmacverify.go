// Package hmacverify receives the webhooks of Guuru, a chat service: it lets a
// request through only if its body is signed with the shared secret.
//
//	rc, err := hmacverify.New(os.Getenv("GUURU_SECRET"))
//	if err != nil {
//		log.Fatal(err) // no secret, no service
//	}
//	http.Handle("/guuru", rc.Handler(http.HandlerFunc(rated)))
//
//	func rated(w http.ResponseWriter, r *http.Request) {
//		p, err := hmacverify.PayloadFrom(r.Context())
//		if err != nil {
//			log.Println(err) // authentic, but a field has another type: see r.Body
//			return
//		}
//		log.Println(p.Status, p.Rating, p.RatedAt.Time())
//	}
//
// The signature is HMAC-SHA256 (RFC 2104, FIPS 180-4) of the raw body. It does
// not cover the method, the URL, the time or any header, the event's name and
// the idempotency key among them: whoever holds one signed request can send it
// again, with other headers. Under one secret a body has exactly one accepted
// signature: remember it, together with the event's name, to tell repetitions.
//
// [Verify] is the check alone, for one body; a [Receiver] is the same check on
// net/http, with secret rotation and a limit on the body. Its [Receiver.Verify] is
// about twice as fast for a body of some hundred bytes.
package hmacverify

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"hash"
)

// SignatureHeader is the request header that carries the signature: the
// HMAC-SHA256 of the raw body, keyed with the secret, as 64 lowercase hex digits.
const SignatureHeader = "X-Guuru-Hmac-Sha256"

// The reasons to refuse a body, to be told apart with [errors.Is].
var (
	// ErrEmptySecret means that there is no secret to check with. HMAC takes an
	// empty key without complaint, and then anyone can sign; so it is never a key.
	ErrEmptySecret = errors.New("hmacverify: empty secret")

	// ErrMissingSignature means that the signature is absent or empty.
	ErrMissingSignature = errors.New("hmacverify: missing signature")

	// ErrMalformedSignature means that the signature is not exactly 64 of the
	// characters 0-9a-f, or that a request has more than one.
	ErrMalformedSignature = errors.New("hmacverify: malformed signature")

	// ErrSignatureMismatch means that the signature is well-formed, but not that
	// of this body with the secret.
	ErrSignatureMismatch = errors.New("hmacverify: signature mismatch")
)

// Sign returns the signature of body: its HMAC-SHA256 (RFC 2104) keyed with secret,
// as 64 lowercase hex digits. It is for senders and for tests of one's own handlers;
// to check a signature use [Verify], not Sign and ==, whose time tells how many
// digits are right.
//
// Sign does not refuse an empty secret, but nothing accepts what it signs with
// one. In FIPS 140-only mode it panics, as crypto/hmac does, if secret is shorter
// than 14 bytes. It is safe for concurrent use.
func Sign(secret string, body []byte) string {
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write(body)
	return hex.EncodeToString(mac.Sum(nil))
}

// Verify returns nil if sig is exactly what [Sign] returns for secret and body;
// otherwise the error is [ErrEmptySecret], [ErrMissingSignature],
// [ErrMalformedSignature] or [ErrSignatureMismatch], in this order. In FIPS
// 140-only mode, a secret that crypto/hmac does not allow is another error.
//
// The body is the request's, byte for byte as it arrived: not decoded, not
// trimmed; a nil body is an empty one. Upper case, prefixes and white space in sig
// are malformed, so that a body has one signature and no second spelling of it.
//
// The time that the comparison takes does not depend on how much of sig is right.
// Verify is safe for concurrent use. It keys a new HMAC at each call; where that
// counts, use [Receiver.Verify].
func Verify(secret string, body []byte, sig string) error {
	mac, err := newMAC(secret)
	if err != nil {
		return err
	}
	tag, err := parseSignature(sig)
	if err != nil {
		return err
	}
	mac.Write(body)
	if !hmac.Equal(mac.Sum(nil), tag[:]) {
		return ErrSignatureMismatch
	}
	return nil
}

var errShortSecret = errors.New("hmacverify: secret shorter than 14 bytes, which FIPS 140-only mode forbids")

// newMAC returns an HMAC-SHA256 keyed with secret, or the reason why it cannot be
// a key.
func newMAC(secret string) (mac hash.Hash, err error) {
	if secret == "" {
		return nil, ErrEmptySecret
	}
	// In FIPS 140-only mode crypto/hmac panics for a key under 112 bits, and before
	// Go 1.26 there is no asking for that mode beforehand. After a panic, err stands.
	err = errShortSecret
	defer func() { recover() }()
	return hmac.New(sha256.New, []byte(secret)), nil
}

// parseSignature decodes sig. Its time depends on sig alone, which the sender
// knows, and not on any secret. (encoding/hex takes upper case as well; to encode
// again what it decodes, and compare, makes Receiver.Verify a tenth slower.)
func parseSignature(sig string) (tag [sha256.Size]byte, err error) {
	if sig == "" {
		return tag, ErrMissingSignature
	}
	if len(sig) != 2*len(tag) {
		return tag, ErrMalformedSignature
	}
	for i := range tag {
		high, low := nibble[sig[2*i]], nibble[sig[2*i+1]]
		if high|low > 0xf {
			return tag, ErrMalformedSignature
		}
		tag[i] = high<<4 | low
	}
	return tag, nil
}

// nibble holds the value of each digit 0-9a-f, and 0xff for every other byte.
var nibble = func() (values [256]byte) {
	for c := range values {
		values[c] = 0xff
	}
	for value, digit := range []byte("0123456789abcdef") {
		values[digit] = byte(value)
	}
	return values
}()
