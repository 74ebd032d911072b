// Copyright (c) 2026 the hmacverify authors
// SPDX-License-Identifier: MIT

// Package hmacverify verifies webhooks from Guuru, a chat service. Guuru signs
// the body of each delivery with a shared secret:
//
//	if err := hmacverify.Verify(secret, body, signature); err != nil {
//		return err // do not trust body
//	}
//
// In an HTTP service, let a [Receiver] read and verify requests. Guuru's
// documentation is at https://developers.guuru.com/docs/webhooks/examples.
//
// The signature is HMAC-SHA256 (RFC 2104) of the raw body. It does not cover
// the method, the URL, the time, or any header. Anyone who captures a request
// can send it again with another event name or idempotency key. [DeliveryID]
// returns a key for detecting duplicates and replays.
//
// All functions are safe for concurrent use. In FIPS 140-only mode, crypto/hmac
// panics if a secret is shorter than 14 bytes.
package hmacverify

import (
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

// Errors returned by [Verify]. Use [errors.Is]: they may be wrapped.
var (
	// ErrEmptySecret means that there is no secret to verify with. HMAC would
	// accept an empty key, and anyone could sign. A secret that consists of NUL
	// bytes counts as empty: HMAC pads short keys with zeros.
	ErrEmptySecret = errors.New("hmacverify: empty secret")
	// ErrMissingSignature means that the signature is absent or empty.
	ErrMissingSignature = errors.New("hmacverify: missing signature")
	// ErrMalformedSignature means that the signature is not 64 lowercase hex
	// digits, or that a request has more than one.
	ErrMalformedSignature = errors.New("hmacverify: malformed signature")
	// ErrSignatureMismatch means that the signature has the right format, but
	// is not valid for this body and secret.
	ErrSignatureMismatch = errors.New("hmacverify: signature mismatch")
)

// Sign returns the HMAC-SHA256 of body keyed with secret, as 64 lowercase hex
// digits. It is for tests and senders. To verify a signature, use [Verify]. Do
// not compare with ==: its timing reveals how many leading digits match.
//
// Sign takes any secret, even an empty one, which Verify rejects.
func Sign(secret string, body []byte) string {
	return hex.EncodeToString(computeMAC(secret, body))
}

// Verify returns nil if secret is not empty and sig is exactly what [Sign]
// returns for secret and body. Otherwise its error wraps the first that
// applies: [ErrEmptySecret], [ErrMissingSignature], [ErrMalformedSignature], or
// [ErrSignatureMismatch].
//
// Pass the body exactly as it arrived. A nil body is an empty body. Uppercase
// digits, prefixes, and whitespace in sig are rejected as malformed, so a body
// has exactly one valid signature for each secret.
//
// The comparison takes constant time.
func Verify(secret string, body []byte, sig string) error {
	if isEmpty(secret) {
		return ErrEmptySecret
	}
	mac, err := decode(sig)
	if err != nil {
		return err
	}
	if !hmac.Equal(mac[:], computeMAC(secret, body)) {
		return ErrSignatureMismatch
	}
	return nil
}

func computeMAC(secret string, body []byte) []byte {
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write(body)
	return mac.Sum(nil)
}

// isEmpty reports whether secret is empty or consists of NUL bytes.
func isEmpty(secret string) bool { return strings.Trim(secret, "\x00") == "" }

// decode returns the MAC that sig encodes. Its errors describe sig without
// showing it.
func decode(sig string) ([sha256.Size]byte, error) {
	var mac [sha256.Size]byte
	if sig == "" {
		return mac, ErrMissingSignature
	}
	if digits := hex.EncodedLen(len(mac)); len(sig) != digits {
		return mac, fmt.Errorf("%w: length %d, want %d", ErrMalformedSignature, len(sig), digits)
	}
	// encoding/hex accepts uppercase digits, too.
	if _, err := hex.Decode(mac[:], []byte(sig)); err != nil || sig != strings.ToLower(sig) {
		return mac, fmt.Errorf("%w: not lowercase hex", ErrMalformedSignature)
	}
	return mac, nil
}
