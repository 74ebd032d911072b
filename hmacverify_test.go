//go:build go1.24

// The constraint lets the tests use Go 1.24 when .ci/run compiles the package
// as Go 1.20, whose loops share one variable among all iterations.

package hmacverify_test

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"runtime/debug"
	"strings"
	"testing"
	"time"

	"example.com/hmacverify"
)

func ExampleVerify() {
	body := []byte(`{"user":{"name":"joao","email":"","locale":"en"},"question":"hello 123","status":"rated","language":"en","transcriptURL":"https://chat.guuru.com/guuru-qa/transcripts/-LZu--MHQ3xLy1RvHqv4","rating":1,"category":"general","createdAt":1551456274349,"acceptedAt":1551456289259,"closedAt":1551456338034,"ratedAt":1551456341040}`)
	// The X-Guuru-Hmac-Sha256 header.
	sig := "7480a83edb7109f9f0021f6150383879f97e926654b91ac3e2aa591dd8fad851"

	fmt.Println(hmacverify.Verify("secr3t", body, sig))

	body = bytes.Replace(body, []byte(`"rating":1`), []byte(`"rating":5`), 1)
	fmt.Println(hmacverify.Verify("secr3t", body, sig))
	// Output:
	// <nil>
	// hmacverify: signature mismatch
}

// secret is the one on Guuru's page of examples.
const secret = "secr3t"

// An example is a body from Guuru's page of examples, byte for byte and without
// a trailing newline, with its signature from that page. OpenSSL computes the
// same signatures:
//
//	for i in 1 2 3; do openssl dgst -sha256 -hmac secr3t -r testdata/example$i.json; done
type example struct{ name, body, sig string }

func examples(tb testing.TB) (all []example) {
	tb.Helper()
	for _, name := range []string{"example1", "example2", "example3"} {
		body, err := os.ReadFile("testdata/" + name + ".json")
		sig, sigErr := os.ReadFile("testdata/" + name + ".sig")
		if err := errors.Join(err, sigErr); err != nil {
			tb.Fatal(err)
		}
		all = append(all, example{name, string(body), string(sig)})
	}
	return all
}

// reference computes a signature without the package under test.
func reference(secret, body string) string {
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write([]byte(body))
	return hex.EncodeToString(mac.Sum(nil))
}

// verifiers are the two ways to verify a body. They must agree.
var verifiers = []struct {
	name   string
	verify func(secret, body, sig string) error
}{
	{"Verify", func(secret, body, sig string) error {
		return hmacverify.Verify(secret, []byte(body), sig)
	}},
	{"Receiver.Verify", func(secret, body, sig string) error {
		rc, _ := hmacverify.New(secret) // nil for an empty secret
		return rc.Verify([]byte(body), sig)
	}},
}

func TestDocumentedSignatures(t *testing.T) {
	for _, ex := range examples(t) {
		t.Run(ex.name, func(t *testing.T) {
			if got := hmacverify.Sign(secret, []byte(ex.body)); got != ex.sig {
				t.Errorf("Sign: got %s, want %s", got, ex.sig)
			}
			for _, v := range verifiers {
				if err := v.verify(secret, ex.body, ex.sig); err != nil {
					t.Errorf("%s: got %v, want nil", v.name, err)
				}
			}
		})
	}
}

// An empty secret is rejected before the signature is looked at.
func TestEmptySecret(t *testing.T) {
	signed := reference("", "")
	for _, secret := range []string{"", "\x00", strings.Repeat("\x00", 65)} {
		if got := hmacverify.Sign(secret, nil); got != reference(secret, "") {
			t.Errorf("Sign(%q): got %s, want %s", secret, got, reference(secret, ""))
		}
		for _, v := range verifiers {
			for _, sig := range []string{signed, "malformed", ""} {
				if err := v.verify(secret, "", sig); !errors.Is(err, hmacverify.ErrEmptySecret) {
					t.Errorf("%s(%q, %q): got %v, want an empty secret", v.name, secret, sig, err)
				}
			}
		}
	}
}

func TestVerifyRejects(t *testing.T) {
	all := examples(t)
	body, sig := all[0].body, all[0].sig
	const base64 = "s1Tx0cZYbazT1XjuWegtmCl2HMvmWipclI+ZozQAl5I=" // of the same HMAC
	absent, bad := hmacverify.ErrMissingSignature, hmacverify.ErrMalformedSignature
	differs := hmacverify.ErrSignatureMismatch
	for _, tc := range []struct {
		name, sig string
		want      error
		detail    string // after the text of want
	}{
		{"no signature", "", absent, ""},

		{"63 digits", sig[:63], bad, ": length 63, want 64"},
		{"65 digits", sig + "0", bad, ": length 65, want 64"},
		{"joined headers", sig + ", " + sig, bad, ": length 130, want 64"},
		{"prefix", "sha256=" + sig, bad, ": length 71, want 64"},
		{"0x", "0x" + sig, bad, ": length 66, want 64"},
		{"quotes", `"` + sig + `"`, bad, ": length 66, want 64"},
		{"trailing newline", sig + "\n", bad, ": length 65, want 64"},
		{"leading space", " " + sig, bad, ": length 65, want 64"},
		{"Base64", base64, bad, ": length 44, want 64"},
		{"uppercase", strings.ToUpper(sig), bad, ": not lowercase hex"},
		{"NUL as the last digit", sig[:63] + "\x00", bad, ": not lowercase hex"},
		{"64 bytes, not ASCII", sig[:62] + "İ", bad, ": not lowercase hex"}, // U+0130, 0x30 is "0"
		{"64 bytes, not UTF-8", sig[:63] + "\xff", bad, ": not lowercase hex"},

		{"another body's signature", all[1].sig, differs, ""},
		{"signed with the empty key", reference("", body), differs, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			for _, v := range verifiers {
				got := v.verify(secret, body, tc.sig)
				if !errors.Is(got, tc.want) || got.Error() != tc.want.Error()+tc.detail {
					t.Errorf("%s: got %v, want %v%s", v.name, got, tc.want, tc.detail)
				}
			}
		})
	}
}

// A comparison that stops early, or a lenient decoder, would accept one of these.
func TestEveryDigitCounts(t *testing.T) {
	ex := examples(t)[0]
	rc := newReceiver(t, secret)
	for i := range ex.sig {
		for _, digit := range "0123456789abcdefABCDEFg" {
			sig := ex.sig[:i] + string(digit) + ex.sig[i+1:]
			want := hmacverify.ErrSignatureMismatch
			if sig == ex.sig {
				want = nil
			} else if digit < '0' || digit > '9' && digit < 'a' || digit > 'f' {
				want = hmacverify.ErrMalformedSignature
			}
			err, again := hmacverify.Verify(secret, []byte(ex.body), sig), rc.Verify([]byte(ex.body), sig)
			if !errors.Is(err, want) || !errors.Is(again, want) {
				t.Errorf("%s: got %v and %v, want %v", sig, err, again, want)
			}
		}
	}
}

// A secret is taken as it is: none of these stands for another. (A secret with
// NUL bytes at its end would: HMAC pads keys with them.)
func TestEveryByteOfTheSecretCounts(t *testing.T) {
	long := strings.Repeat("x", 64) // the block size of SHA-256
	secrets := []string{" ", "\t", "secr3t", "SECR3T", `"secr3t"`, "'secr3t'", "secr3t\xff",
		"whsec_secr3t", "secr3t\ufffd", long, long + "a", long + "b", long + "\x00"}
	for _, affix := range []string{" ", "\t", "\v", "\f", "\u0085", "\u00a0", "\u2028", "\ufeff", "\x00 "} {
		secrets = append(secrets, affix+"secr3t", "secr3t"+affix)
	}
	for _, signedWith := range secrets {
		sig := hmacverify.Sign(signedWith, nil)
		if want := reference(signedWith, ""); sig != want {
			t.Errorf("Sign with %q: got %s, want %s", signedWith, sig, want)
		}
		for _, secret := range secrets {
			for _, v := range verifiers {
				if err := v.verify(secret, "", sig); (err == nil) != (secret == signedWith) {
					t.Errorf("%s with %q, signed with %q: got %v", v.name, secret, signedWith, err)
				}
			}
		}
	}
}

// In FIPS 140-only mode, crypto/hmac panics if a key is shorter than 14 bytes.
// So do Sign, Verify, and New. The mode is per process.
func TestFIPS140Only(t *testing.T) {
	const mode = "fips140=only"
	if os.Getenv("GODEBUG") != mode {
		again := exec.Command(os.Args[0], "-test.run=^TestFIPS140Only$", "-test.v")
		again.Env = append(os.Environ(), "GODEBUG="+mode)
		out, err := again.CombinedOutput()
		var exit *exec.ExitError
		if err != nil && !errors.As(err, &exit) { // as with go test -exec for another platform
			t.Skip("cannot start the test in FIPS 140-only mode: ", err)
		}
		if reason := regexp.MustCompile(`FIPS 140-3 mode is incompatible .*`).Find(out); reason != nil {
			t.Skip(string(reason))
		}
		if err != nil || !bytes.Contains(out, []byte("--- PASS: TestFIPS140Only")) {
			t.Errorf("in a process with GODEBUG=%s: %v\n%s", mode, err, out)
		}
		return
	}

	const long, short = "14 bytes: okay", "13 bytes: no."
	for name, call := range map[string]func(){
		"Sign":   func() { hmacverify.Sign(short, nil) },
		"Verify": func() { hmacverify.Verify(short, nil, reference(long, "")) },
		"New":    func() { hmacverify.New(long, short) },
	} {
		if recovered(call) == nil {
			t.Errorf("%s with a short secret: got no panic, want one from crypto/hmac", name)
		}
	}
	if err := hmacverify.Verify(long, nil, hmacverify.Sign(long, nil)); err != nil {
		t.Errorf("Verify with a secret of 14 bytes: got %v, want nil", err)
	}
}

// recovered returns the value that f panics with, or nil.
func recovered(f func()) (value any) {
	defer func() { value = recover() }()
	f()
	return nil
}

func TestVerifyAllocations(t *testing.T) {
	info, _ := debug.ReadBuildInfo()
	if regexp.MustCompile("-race=true|boringcrypto").MatchString(fmt.Sprint(info)) {
		t.Skip("HMACs of boringcrypto allocate; under -race, a sync.Pool drops items at random")
	}
	ex := examples(t)[0]
	body := []byte(ex.body)
	rc := newReceiver(t, "new secret", secret)
	got := testing.AllocsPerRun(1000, func() { hmacverify.Verify(secret, body, ex.sig) })
	if got > 7 {
		t.Errorf("Verify: got %v allocations, want at most 7", got)
	}
	for _, sig := range []string{ex.sig, forged} {
		if got := testing.AllocsPerRun(1000, func() { rc.Verify(body, sig) }); got > 0 {
			t.Errorf("Receiver.Verify(%s): got %v allocations, want none", sig, got)
		}
	}
}

// A malformed signature is rejected before the body is hashed.
func TestMalformedSignatureIsCheap(t *testing.T) {
	body := make([]byte, 16<<20)
	for name, verify := range map[string]func([]byte, string) error{
		"Verify":          func(b []byte, sig string) error { return hmacverify.Verify(secret, b, sig) },
		"Receiver.Verify": newReceiver(t, secret).Verify,
	} {
		fastest := func(sig string) time.Duration {
			least := time.Hour
			for range 5 {
				begin := time.Now()
				verify(body, sig)
				least = min(least, time.Since(begin))
			}
			return least
		}
		if malformed, mismatch := fastest("malformed"), fastest(forged); malformed > mismatch/10 {
			t.Errorf("%s: got %v for a malformed signature, %v for a mismatch", name, malformed, mismatch)
		}
	}
}

// FuzzVerify checks that each verifier agrees with the reference.
func FuzzVerify(f *testing.F) {
	for _, ex := range examples(f) {
		f.Add(secret, ex.body, ex.sig)
		f.Add("", ex.body, reference("", ex.body))
		f.Add("\x00\x00", ex.body, reference("", ex.body))
		f.Add(secret, ex.body, strings.ToUpper(ex.sig))
		f.Add("\n", ex.body, "") // Verify takes any secret
	}
	noSecret := regexp.MustCompile(`\A\x00*\z`)
	wellFormed := regexp.MustCompile(`\A[0-9a-f]{64}\z`)
	f.Fuzz(func(t *testing.T, secret, body, sig string) {
		valid := reference(secret, body) // which a fuzzer cannot guess
		for _, sig := range []string{sig, valid, valid + sig} {
			var want error
			switch {
			case noSecret.MatchString(secret):
				want = hmacverify.ErrEmptySecret
			case sig == "":
				want = hmacverify.ErrMissingSignature
			case !wellFormed.MatchString(sig):
				want = hmacverify.ErrMalformedSignature
			case sig != valid:
				want = hmacverify.ErrSignatureMismatch
			}
			for _, v := range verifiers {
				if v.name == "Receiver.Verify" && strings.ContainsAny(secret, "\r\n") {
					continue // New rejects it
				}
				if got := v.verify(secret, body, sig); !errors.Is(got, want) {
					t.Errorf("%s(%q, %q, %q): got %v, want %v", v.name, secret, body, sig, got, want)
				}
			}
		}
	})
}

func BenchmarkVerify(b *testing.B) {
	ex, rc := examples(b)[0], newReceiver(b, secret)
	body := []byte(ex.body)
	b.Run("Verify", func(b *testing.B) {
		for b.Loop() {
			hmacverify.Verify(secret, body, ex.sig)
		}
	})
	b.Run("Receiver.Verify", func(b *testing.B) {
		for b.Loop() {
			rc.Verify(body, ex.sig)
		}
	})
}
