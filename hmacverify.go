// Package hmacverify verifies webhooks from Guuru, a chat service. Guuru signs
// the body of each delivery with a shared secret:
//
//	if err := hmacverify.Verify(secret, body, signature); err != nil {
//		return err // do not trust body
//	}
//
// The signature is HMAC-SHA256 (RFC 2104) of the raw body. It does not cover
// the method, the URL, the time, or any header. Anyone who captures a request
// can send it again with another event name or idempotency key. To detect
// duplicates, remember the signature and the event name, and treat all unknown
// names as one. A body has exactly one valid signature for each secret.
//
// For an HTTP service, use the Receiver in handler.go. All functions are safe
// for concurrent use. Guuru documents its webhooks at
// https://developers.guuru.com/docs/webhooks/examples.
package hmacverify

import (
	"cmp"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
)

// SignatureHeader is the request header that carries the signature, in the
// format of [Sign].
const SignatureHeader = "X-Guuru-Hmac-Sha256"

// Reasons to reject a signature. Use [errors.Is]: they may be wrapped with
// details.
var (
	// ErrEmptySecret means that there is no secret to verify with. HMAC accepts
	// an empty key, but then anyone can sign.
	ErrEmptySecret = errors.New("hmacverify: empty secret")
	// ErrMissingSignature means that the signature is absent or empty.
	ErrMissingSignature = errors.New("hmacverify: missing signature")
	// ErrMalformedSignature means that the signature is not 64 lowercase hex
	// digits, or that there is more than one.
	ErrMalformedSignature = errors.New("hmacverify: malformed signature")
	// ErrSignatureMismatch means that the signature has the right format, but
	// is not valid for this body and secret.
	ErrSignatureMismatch = errors.New("hmacverify: signature mismatch")
)

// Sign returns the HMAC-SHA256 of body keyed with secret, as 64 lowercase hex
// digits. It is for tests and senders. To verify a signature, use [Verify]. Do
// not compare with ==: its timing reveals how many leading digits match.
//
// Sign takes any secret, even an empty one, which Verify rejects. In FIPS
// 140-only mode, Sign panics if secret is shorter than 14 bytes, as crypto/hmac
// does.
func Sign(secret string, body []byte) string {
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write(body)
	return hex.EncodeToString(mac.Sum(nil))
}

// Verify returns nil if sig is exactly what [Sign] returns for secret and body.
// Otherwise its error wraps the first of these that applies: [ErrEmptySecret],
// [ErrMissingSignature], [ErrMalformedSignature], or [ErrSignatureMismatch].
//
// Pass the body exactly as it arrived. A nil body is an empty body. Uppercase
// digits, prefixes, and whitespace in sig are rejected as malformed.
//
// The comparison takes constant time. In FIPS 140-only mode, Verify panics if
// secret is shorter than 14 bytes, as crypto/hmac does.
func Verify(secret string, body []byte, sig string) error {
	if secret == "" {
		return ErrEmptySecret
	}
	if !hmac.Equal([]byte(Sign(secret, body)), []byte(sig)) {
		return cmp.Or(checkFormat(sig), ErrSignatureMismatch)
	}
	return nil
}

// checkFormat returns nil if sig is 64 lowercase hex digits. Its errors
// describe sig without showing it.
func checkFormat(sig string) error {
	if sig == "" {
		return ErrMissingSignature
	}
	if len(sig) != 64 {
		return fmt.Errorf("%w: length %d, want 64", ErrMalformedSignature, len(sig))
	}
	if strings.Trim(sig, "0123456789abcdef") == "" {
		return nil
	}
	if strings.Trim(sig, "0123456789abcdefABCDEF") == "" {
		return fmt.Errorf("%w: uppercase hex, want lowercase", ErrMalformedSignature)
	}
	return fmt.Errorf("%w: not hex", ErrMalformedSignature)
}
