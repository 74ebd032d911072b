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
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"testing"

	"example.com/hmacverify"
)

// secret is the one that Guuru's page of examples signs with.
const secret = "secr3t"

// An example is one of the three bodies on Guuru's page of examples, byte for byte
// and without a newline at its end, with the signature that the page gives for it.
// OpenSSL agrees, in a shell at the top of the tree:
//
//	for i in 1 2 3; do
//		openssl dgst -sha256 -hmac secr3t -r testdata/example$i.json
//		cat testdata/example$i.sig; echo
//	done
type example struct {
	name string
	body []byte
	sig  string
}

func examples(tb testing.TB) []example {
	tb.Helper()
	var all []example
	for _, name := range []string{"example1", "example2", "example3"} {
		body, err := os.ReadFile(filepath.Join("testdata", name+".json"))
		if err != nil {
			tb.Fatal(err)
		}
		sig, err := os.ReadFile(filepath.Join("testdata", name+".sig"))
		if err != nil {
			tb.Fatal(err)
		}
		all = append(all, example{name, body, string(sig)})
	}
	return all
}

// verifiers are the two ways to check one body, which have to agree.
var verifiers = []struct {
	name   string
	verify func(secret string, body []byte, sig string) error
}{
	{"Verify", hmacverify.Verify},
	{"Receiver.Verify", func(secret string, body []byte, sig string) error {
		rc, err := hmacverify.New(secret)
		if err != nil {
			return err
		}
		return rc.Verify(body, sig)
	}},
}

func TestDocumentedSignatures(t *testing.T) {
	for _, ex := range examples(t) {
		if got := hmacverify.Sign(secret, ex.body); got != ex.sig {
			t.Errorf("%s: Sign: got %s, want %s", ex.name, got, ex.sig)
		}
		for _, v := range verifiers {
			if err := v.verify(secret, ex.body, ex.sig); err != nil {
				t.Errorf("%s: %s: got %v, want nil", ex.name, v.name, err)
			}
		}
	}
}

// The HMAC-SHA-256 values of RFC 4231, section 4. Case 5 is a tag cut to 128 bits,
// which some protocols take and this package must not.
func TestRFC4231(t *testing.T) {
	repeat := func(s string, n int) string { return strings.Repeat(s, n) }
	for _, tc := range []struct {
		name, key, data, tag string
		want                 error
	}{
		{"case 1", repeat("\x0b", 20), "Hi There",
			"b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7", nil},
		{"case 2", "Jefe", "what do ya want for nothing?",
			"5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843", nil},
		{"case 3", repeat("\xaa", 20), repeat("\xdd", 50),
			"773ea91e36800e46854db8ebd09181a72959098b3ef8c122d9635514ced565fe", nil},
		{"case 4", "\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0a\x0b\x0c\x0d\x0e\x0f\x10\x11\x12\x13\x14\x15\x16\x17\x18\x19", repeat("\xcd", 50),
			"82558a389a443c0ea4cc819899f2083a85f0faa3e578f8077a2e3ff46729665b", nil},
		{"case 5", repeat("\x0c", 20), "Test With Truncation",
			"a3b6167473100ee06e0c796c2955552b", hmacverify.ErrMalformedSignature},
		{"case 6", repeat("\xaa", 131), "Test Using Larger Than Block-Size Key - Hash Key First",
			"60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54", nil},
		{"case 7", repeat("\xaa", 131), "This is a test using a larger than block-size key and a larger than block-size data. The key needs to be hashed before being used by the HMAC algorithm.",
			"9b09ffa71b942fcb27635fbcd5b0e944bfdc63644f0713938a7f51535c3a35e2", nil},
	} {
		for _, v := range verifiers {
			if got := v.verify(tc.key, []byte(tc.data), tc.tag); !errors.Is(got, tc.want) {
				t.Errorf("%s: %s: got %v, want %v", tc.name, v.name, got, tc.want)
			}
		}
		if got := hmacverify.Sign(tc.key, []byte(tc.data)); !strings.HasPrefix(got, tc.tag) {
			t.Errorf("%s: Sign: got %s, want %s", tc.name, got, tc.tag)
		}
	}
}

func TestVerifyRefuses(t *testing.T) {
	ex := examples(t)[0]
	body, sig := ex.body, ex.sig
	const emptyKeySig = "b613679a0814d9ec772f95d778c35fc5ff1697c493715653c6c712144292c5ad" // of an empty body, with an empty key: printf '' | openssl dgst -sha256 -hmac ''
	if got := hmacverify.Sign("", nil); got != emptyKeySig {
		t.Errorf("Sign with an empty secret: got %s, want %s", got, emptyKeySig)
	}
	for _, tc := range []struct {
		name   string
		secret string
		body   []byte
		sig    string
		want   error
	}{
		{"empty secret, signed with the empty key", "", nil, emptyKeySig, hmacverify.ErrEmptySecret},
		{"empty secret comes before a missing signature", "", body, "", hmacverify.ErrEmptySecret},
		{"empty secret comes before a malformed signature", "", body, "x", hmacverify.ErrEmptySecret},

		{"no signature", secret, body, "", hmacverify.ErrMissingSignature},

		{"63 digits", secret, body, sig[:63], hmacverify.ErrMalformedSignature},
		{"62 digits", secret, body, sig[:62], hmacverify.ErrMalformedSignature},
		{"65 digits", secret, body, sig + "0", hmacverify.ErrMalformedSignature},
		{"66 digits", secret, body, sig + "00", hmacverify.ErrMalformedSignature},
		{"twice the digits", secret, body, sig + sig, hmacverify.ErrMalformedSignature},
		{"two signatures in one", secret, body, sig + ", " + sig, hmacverify.ErrMalformedSignature},
		{"a very long signature", secret, body, strings.Repeat("0", 1<<20), hmacverify.ErrMalformedSignature},
		{"upper case", secret, body, strings.ToUpper(sig), hmacverify.ErrMalformedSignature},
		{"one letter in upper case", secret, body, "B" + sig[1:], hmacverify.ErrMalformedSignature},
		{"the last letter in upper case", secret, body, sig[:63] + "A", hmacverify.ErrMalformedSignature},
		{"prefix", secret, body, "sha256=" + sig, hmacverify.ErrMalformedSignature},
		{"prefix, 64 characters", secret, body, "sha256=" + sig[7:], hmacverify.ErrMalformedSignature},
		{"space before", secret, body, " " + sig, hmacverify.ErrMalformedSignature},
		{"space after", secret, body, sig + " ", hmacverify.ErrMalformedSignature},
		{"newline after", secret, body, sig + "\n", hmacverify.ErrMalformedSignature},
		{"space for the last digit", secret, body, sig[:63] + " ", hmacverify.ErrMalformedSignature},
		{"NUL for the last digit", secret, body, sig[:63] + "\x00", hmacverify.ErrMalformedSignature},
		{"not hex", secret, body, sig[:63] + "g", hmacverify.ErrMalformedSignature},
		{"not ASCII, 64 bytes", secret, body, sig[:62] + "é", hmacverify.ErrMalformedSignature},
		{"not ASCII, 64 characters", secret, body, sig[:63] + "é", hmacverify.ErrMalformedSignature},
		{"digits of another script", secret, body, strings.Repeat("١", 32), hmacverify.ErrMalformedSignature},
		{"Base64", secret, body, "s1Tx0cZYbazT1XjuWegtmCl2HMvmWipclI+ZozQAl5I=", hmacverify.ErrMalformedSignature},

		{"all zero", secret, body, strings.Repeat("0", 64), hmacverify.ErrSignatureMismatch},
		{"of another body", secret, body, examples(t)[1].sig, hmacverify.ErrSignatureMismatch},
		{"another secret", "secr3t2", body, sig, hmacverify.ErrSignatureMismatch},
		{"secret with a newline", "secr3t\n", body, sig, hmacverify.ErrSignatureMismatch},
		{"body with a newline", secret, append(bytes.Clone(body), '\n'), sig, hmacverify.ErrSignatureMismatch},
		{"body cut short", secret, body[:len(body)-1], sig, hmacverify.ErrSignatureMismatch},
		{"nil body", secret, nil, sig, hmacverify.ErrSignatureMismatch},
		{"empty key's signature", secret, nil, emptyKeySig, hmacverify.ErrSignatureMismatch},
	} {
		for _, v := range verifiers {
			if got := v.verify(tc.secret, tc.body, tc.sig); !errors.Is(got, tc.want) {
				t.Errorf("%s: %s: got %v, want %v", tc.name, v.name, got, tc.want)
			}
		}
	}
}

// A comparison that stops early, or leaves out some of the digits, accepts one of these.
func TestEveryDigitCounts(t *testing.T) {
	ex := examples(t)[0]
	for i := range ex.sig {
		for _, digit := range []byte("0123456789abcdef") {
			if digit == ex.sig[i] {
				continue
			}
			sig := []byte(ex.sig)
			sig[i] = digit
			for _, v := range verifiers {
				if got := v.verify(secret, ex.body, string(sig)); !errors.Is(got, hmacverify.ErrSignatureMismatch) {
					t.Errorf("%s: digit %d is %c, not %c: got %v, want %v", v.name, i, digit, ex.sig[i], got, hmacverify.ErrSignatureMismatch)
				}
			}
		}
	}
}

func TestErrorsNameThePackage(t *testing.T) {
	seen := map[string]bool{}
	for _, err := range []error{
		hmacverify.ErrEmptySecret, hmacverify.ErrMissingSignature, hmacverify.ErrMalformedSignature, hmacverify.ErrSignatureMismatch,
		hmacverify.ErrMethodNotAllowed, hmacverify.ErrMalformedPayload, hmacverify.ErrNoPayload,
	} {
		if text := err.Error(); !strings.HasPrefix(text, "hmacverify: ") || seen[text] {
			t.Errorf("got %q, want a text of its own that begins with %q", text, "hmacverify: ")
		}
		seen[err.Error()] = true
	}
}

// People copy hmacverify.go into their services: it has to build without handler.go.
func TestCheckStandsAlone(t *testing.T) {
	src, err := os.ReadFile("hmacverify.go")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "hmacverify.go"), src, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "go.mod"), []byte("module alone\n\ngo 1.24\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	build := exec.Command("go", "build", ".")
	build.Dir = dir
	if out, err := build.CombinedOutput(); err != nil {
		t.Errorf("go build: %v\n%s", err, out)
	}
}

// In FIPS 140-only mode crypto/hmac panics for keys under 14 bytes. That has to be
// an error where the secret is given. The mode is a process's, so the test starts
// itself again in one.
func TestFIPS140Only(t *testing.T) {
	const mode = "fips140=only"
	if os.Getenv("GODEBUG") != mode {
		again := exec.Command(os.Args[0], "-test.run=^TestFIPS140Only$", "-test.v")
		again.Env = append(os.Environ(), "GODEBUG="+mode)
		out, err := again.CombinedOutput()
		if err != nil || !bytes.Contains(out, []byte("--- PASS: TestFIPS140Only")) {
			t.Errorf("in a process with GODEBUG=%s: %v\n%s", mode, err, out)
		}
		return
	}

	long, short := "14 bytes: okay", "13 bytes: no."
	for _, secrets := range [][]string{{short}, {long, short}} {
		rc, err := hmacverify.New(secrets...)
		if rc != nil || err == nil || !strings.HasPrefix(err.Error(), "hmacverify: ") || errors.Is(err, hmacverify.ErrEmptySecret) {
			t.Errorf("New(%q): got %v, %v; want nil and an error of its own", secrets, rc, err)
		}
		if err != nil && strings.Contains(err.Error(), short) {
			t.Errorf("New(%q): the error shows the secret: %v", secrets, err)
		}
	}
	if _, err := hmacverify.New(""); !errors.Is(err, hmacverify.ErrEmptySecret) {
		t.Errorf("New with an empty secret: got %v, want %v", err, hmacverify.ErrEmptySecret)
	}
	body := []byte("{}")
	if err := hmacverify.Verify(short, body, strings.Repeat("0", 64)); err == nil || errors.Is(err, hmacverify.ErrSignatureMismatch) {
		t.Errorf("Verify with a short secret: got %v, want an error of its own", err)
	}
	for _, v := range verifiers {
		if err := v.verify(long, body, hmacverify.Sign(long, body)); err != nil {
			t.Errorf("%s with a secret of 14 bytes: got %v, want nil", v.name, err)
		}
	}
}

func TestReceiverVerifyDoesNotAllocate(t *testing.T) {
	if raceEnabled() {
		t.Skip("under -race, sync.Pool drops what it is given at random")
	}
	ex := examples(t)[0]
	forged := strings.Repeat("0", 64)
	rc, err := hmacverify.New("new secret", secret)
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name, sig string
		want      error
	}{
		{"right", ex.sig, nil},
		{"forged", forged, hmacverify.ErrSignatureMismatch},
		{"malformed", "x", hmacverify.ErrMalformedSignature},
	} {
		allocs := testing.AllocsPerRun(1000, func() {
			if err := rc.Verify(ex.body, tc.sig); !errors.Is(err, tc.want) {
				t.Fatalf("%s: got %v, want %v", tc.name, err, tc.want)
			}
		})
		if allocs != 0 {
			t.Errorf("%s: got %v allocations, want 0", tc.name, allocs)
		}
	}
}

func raceEnabled() bool {
	info, ok := debug.ReadBuildInfo()
	return ok && slices.Contains(info.Settings, debug.BuildSetting{Key: "-race", Value: "true"})
}

// reference is an independent signature: what crypto/hmac and encoding/hex give.
func reference(secret string, body []byte) string {
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write(body)
	return hex.EncodeToString(mac.Sum(nil))
}

func FuzzVerify(f *testing.F) {
	for _, ex := range examples(f) {
		f.Add(secret, ex.body, ex.sig)
		f.Add("", ex.body, reference("", ex.body))
		f.Add(secret, ex.body, strings.ToUpper(ex.sig))
		f.Add(secret, ex.body, "sha256="+ex.sig)
		f.Add(secret, ex.body, "")
	}
	f.Fuzz(func(t *testing.T, secret string, body []byte, sig string) {
		right := reference(secret, body)
		n := min(len(sig), len(right))
		// A fuzzer does not guess signatures: so try the right one too, and ones of
		// which a part is what the fuzzer came up with.
		for _, sig := range []string{sig, right, sig[:n] + right[n:], right[:len(right)-n] + sig[:n], right + sig} {
			accept := secret != "" && sig == right
			for _, v := range verifiers {
				err := v.verify(secret, body, sig)
				if (err == nil) != accept {
					t.Errorf("%s(%q, %q, %q): got %v, want accepted: %t", v.name, secret, body, sig, err, accept)
				}
				var want error
				switch {
				case secret == "":
					want = hmacverify.ErrEmptySecret
				case sig == "":
					want = hmacverify.ErrMissingSignature
				case len(sig) != 64 || strings.Trim(sig, "0123456789abcdef") != "":
					want = hmacverify.ErrMalformedSignature
				case sig != right:
					want = hmacverify.ErrSignatureMismatch
				}
				if !errors.Is(err, want) {
					t.Errorf("%s(%q, %q, %q): got %v, want %v", v.name, secret, body, sig, err, want)
				}
			}
		}
	})
}

// The cost of one check. Baselines: sha256.Sum256 of the same body is the floor, and
// "new HMAC" is what most receivers do for each request.
func BenchmarkCheck(b *testing.B) {
	for _, size := range []struct {
		name string
		body []byte
	}{
		{"424B", examples(b)[0].body},
		{"1MiB", bytes.Repeat([]byte{'x'}, 1<<20)},
	} {
		body, sig := size.body, reference(secret, size.body)
		rc, err := hmacverify.New(secret)
		if err != nil {
			b.Fatal(err)
		}
		check := func(name string, accepted func() bool) {
			b.Run(size.name+"/"+name, func(b *testing.B) {
				b.SetBytes(int64(len(body)))
				b.ReportAllocs()
				for b.Loop() {
					if !accepted() {
						b.Fatal("refused")
					}
				}
			})
		}
		digest := sha256.Sum256(body)
		check("sha256.Sum256", func() bool { return sha256.Sum256(body) == digest })
		check("new HMAC", func() bool {
			mac := hmac.New(sha256.New, []byte(secret))
			mac.Write(body)
			return hmac.Equal([]byte(hex.EncodeToString(mac.Sum(nil))), []byte(sig))
		})
		check("Verify", func() bool { return hmacverify.Verify(secret, body, sig) == nil })
		check("Receiver.Verify", func() bool { return rc.Verify(body, sig) == nil })
	}
}

// What a wrong signature costs, by the place of the first wrong digit: the same. The
// body is empty, so that the comparison is as much of the time as it can be; string ==
// and bytes.Equal stop at the first difference.
func BenchmarkMismatch(b *testing.B) {
	right := reference(secret, nil)
	other := func(digit byte) string {
		if digit == '0' {
			return "1"
		}
		return "0"
	}
	rc, err := hmacverify.New(secret)
	if err != nil {
		b.Fatal(err)
	}
	for _, wrong := range []struct{ name, sig string }{
		{"first digit", other(right[0]) + right[1:]},
		{"last digit", right[:63] + other(right[63])},
	} {
		b.Run(wrong.name, func(b *testing.B) {
			for b.Loop() {
				if err := rc.Verify(nil, wrong.sig); err != hmacverify.ErrSignatureMismatch {
					b.Fatal(err)
				}
			}
		})
	}
}

func ExampleVerify() {
	body := []byte(`{"user":{"name":"joao","email":"","locale":"en"},"question":"hello 123","status":"rated","language":"en","transcriptURL":"https://chat.guuru.com/guuru-qa/transcripts/-LZu--MHQ3xLy1RvHqv4","rating":1,"category":"general","createdAt":1551456274349,"acceptedAt":1551456289259,"closedAt":1551456338034,"ratedAt":1551456341040}`)
	sig := "7480a83edb7109f9f0021f6150383879f97e926654b91ac3e2aa591dd8fad851" // the X-Guuru-Hmac-Sha256 header

	fmt.Println(hmacverify.Verify("secr3t", body, sig))

	body = bytes.Replace(body, []byte(`"rating":1`), []byte(`"rating":5`), 1)
	fmt.Println(hmacverify.Verify("secr3t", body, sig))
	// Output:
	// <nil>
	// hmacverify: signature mismatch
}
