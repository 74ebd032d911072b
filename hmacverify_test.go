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
	"regexp"
	"runtime/debug"
	"slices"
	"strings"
	"testing"

	"example.com/hmacverify"
)

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

// secret is the one on Guuru's page of examples.
const secret = "secr3t"

// An example is a body from Guuru's page of examples, byte for byte and without
// a trailing newline, with its signature from that page. OpenSSL computes the
// same signatures:
//
//	for i in 1 2 3; do openssl dgst -sha256 -hmac secr3t -r testdata/example$i.json; done
type example struct {
	name string
	body []byte
	sig  string
}

func examples(tb testing.TB) []example {
	tb.Helper()
	var all []example
	for _, name := range []string{"example1", "example2", "example3"} {
		body, sig := read(tb, "testdata/"+name+".json"), read(tb, "testdata/"+name+".sig")
		all = append(all, example{name, body, string(sig)})
	}
	return all
}

func read(tb testing.TB, name string) []byte {
	tb.Helper()
	text, err := os.ReadFile(filepath.FromSlash(name))
	if err != nil {
		tb.Fatal(err)
	}
	return text
}

// reference computes a signature without the package under test.
func reference(secret string, body []byte) string {
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write(body)
	return hex.EncodeToString(mac.Sum(nil))
}

// verifiers are the two ways to verify a body. They must agree.
var verifiers = []struct {
	name   string
	verify func(secret string, body []byte, sig string) error
}{
	{"Verify", hmacverify.Verify},
	{"Receiver.Verify", func(secret string, body []byte, sig string) error {
		rc, err := hmacverify.New(secret)
		if err != nil {
			rc = new(hmacverify.Receiver) // New rejects an empty secret
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

func TestVerifyRejects(t *testing.T) {
	ex := examples(t)[0]
	body, sig := ex.body, ex.sig
	// printf '' | openssl dgst -sha256 -hmac ''
	const emptyKeySig = "b613679a0814d9ec772f95d778c35fc5ff1697c493715653c6c712144292c5ad"
	if got := hmacverify.Sign("", nil); got != emptyKeySig {
		t.Errorf("Sign with an empty secret: got %s, want %s", got, emptyKeySig)
	}
	const (
		empty     = "hmacverify: empty secret"
		missing   = "hmacverify: missing signature"
		malformed = "hmacverify: malformed signature: "
		mismatch  = "hmacverify: signature mismatch"
		notHex    = malformed + "not hex"
	)
	for _, tc := range []struct {
		name   string
		secret string
		body   []byte
		sig    string
		want   error
		text   string
	}{
		{"empty secret, signature made with it", "", nil, emptyKeySig, hmacverify.ErrEmptySecret, empty},
		{"empty secret, malformed signature", "", body, "x", hmacverify.ErrEmptySecret, empty},

		{"no signature", secret, body, "", hmacverify.ErrMissingSignature, missing},

		{"63 digits", secret, body, sig[:63], hmacverify.ErrMalformedSignature, malformed + "length 63, want 64"},
		{"65 digits", secret, body, sig + "0", hmacverify.ErrMalformedSignature, malformed + "length 65, want 64"},
		{"two signatures in one", secret, body, sig + ", " + sig, hmacverify.ErrMalformedSignature, malformed + "length 130, want 64"},
		{"truncated to 128 bits", secret, body, sig[:32], hmacverify.ErrMalformedSignature, malformed + "length 32, want 64"},
		{"prefix", secret, body, "sha256=" + sig, hmacverify.ErrMalformedSignature, malformed + "length 71, want 64"},
		{"trailing newline", secret, body, sig + "\n", hmacverify.ErrMalformedSignature, malformed + "length 65, want 64"},
		{"Base64", secret, body, "s1Tx0cZYbazT1XjuWegtmCl2HMvmWipclI+ZozQAl5I=", hmacverify.ErrMalformedSignature, malformed + "length 44, want 64"},
		{"uppercase", secret, body, strings.ToUpper(sig), hmacverify.ErrMalformedSignature, malformed + "uppercase hex, want lowercase"},
		{"last digit uppercase", secret, body, sig[:63] + "A", hmacverify.ErrMalformedSignature, malformed + "uppercase hex, want lowercase"},
		{"prefix, 64 characters", secret, body, "sha256=" + sig[7:], hmacverify.ErrMalformedSignature, notHex},
		{"letter g", secret, body, sig[:31] + "g" + sig[32:], hmacverify.ErrMalformedSignature, notHex},
		{"leading space", secret, body, " " + sig, hmacverify.ErrMalformedSignature, malformed + "length 65, want 64"},
		{"NUL as the last digit", secret, body, sig[:63] + "\x00", hmacverify.ErrMalformedSignature, notHex},
		{"64 bytes, not ASCII", secret, body, sig[:62] + "é", hmacverify.ErrMalformedSignature, notHex},

		{"all zero", secret, body, strings.Repeat("0", 64), hmacverify.ErrSignatureMismatch, mismatch},
		{"another body's signature", secret, body, examples(t)[1].sig, hmacverify.ErrSignatureMismatch, mismatch},
		{"another secret", "secr3t2", body, sig, hmacverify.ErrSignatureMismatch, mismatch},
		{"body with a trailing newline", secret, append(bytes.Clone(body), '\n'), sig, hmacverify.ErrSignatureMismatch, mismatch},
		{"truncated body", secret, body[:len(body)-1], sig, hmacverify.ErrSignatureMismatch, mismatch},
		{"signed with the empty key", secret, nil, emptyKeySig, hmacverify.ErrSignatureMismatch, mismatch},
	} {
		for _, v := range verifiers {
			got := v.verify(tc.secret, tc.body, tc.sig)
			if !errors.Is(got, tc.want) || got.Error() != tc.text {
				t.Errorf("%s: %s: got %v, want %s", tc.name, v.name, got, tc.text)
			}
		}
	}
}

// A comparison that stopped early or skipped a digit would accept one of these.
func TestEveryDigitCounts(t *testing.T) {
	ex := examples(t)[0]
	for i := range ex.sig {
		sig := []byte(ex.sig)
		sig[i] ^= 1 // for a and f, no longer a hex digit
		for _, v := range verifiers {
			if v.verify(secret, ex.body, string(sig)) == nil {
				t.Errorf("%s: %s: got nil, want an error", v.name, sig)
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
		if err != nil || !bytes.Contains(out, []byte("--- PASS: TestFIPS140Only")) {
			t.Errorf("in a process with GODEBUG=%s: %v\n%s", mode, err, out)
		}
		return
	}

	const long, short = "14 bytes: okay", "13 bytes: no."
	for name, call := range map[string]func(){
		"Sign":   func() { hmacverify.Sign(short, nil) },
		"Verify": func() { hmacverify.Verify(short, nil, reference(long, nil)) },
		"New":    func() { hmacverify.New(long, short) },
	} {
		if !panics(call) {
			t.Errorf("%s with a short secret: got no panic, want one from crypto/hmac", name)
		}
	}
	if err := hmacverify.Verify(long, nil, hmacverify.Sign(long, nil)); err != nil {
		t.Errorf("Verify with a secret of 14 bytes: got %v, want nil", err)
	}
}

func panics(f func()) (panicked bool) {
	defer func() { panicked = recover() != nil }()
	f()
	return false
}

// People copy the files into modules with older language versions. Before Go
// 1.22, all iterations of a loop share one variable.
func TestFilesWorkWhenCopied(t *testing.T) {
	dir := t.TempDir()
	write := func(name string, text []byte) {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, text, 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	write("go.mod", []byte("module service\n\ngo 1.20\n"))
	write("alone/hmacverify.go", read(t, "hmacverify.go"))
	write("hmacverify/hmacverify.go", read(t, "hmacverify.go"))
	write("hmacverify/handler.go", read(t, "handler.go"))
	write("main.go", []byte(`package main

import (
	"fmt"

	alone "service/alone"
	"service/hmacverify"
)

func main() {
	rc, err := hmacverify.New("new", "old", "older")
	fmt.Println(err)
	for _, secret := range []string{"new", "old", "older", "oldest"} {
		fmt.Println(rc.Verify(nil, alone.Sign(secret, nil)))
	}
}
`))
	run := exec.Command("go", "run", ".")
	run.Dir = dir
	out, err := run.CombinedOutput()
	if want := strings.Repeat("<nil>\n", 4) + "hmacverify: signature mismatch\n"; string(out) != want || err != nil {
		t.Errorf("got %q, %v; want %q", out, err, want)
	}
}

func TestReceiverVerifyDoesNotAllocate(t *testing.T) {
	skipUnderRace(t)
	ex := examples(t)[0]
	rc := newReceiver(t, "new secret", secret)
	for sig, want := range map[string]error{ex.sig: nil, strings.Repeat("0", 64): hmacverify.ErrSignatureMismatch} {
		allocs := testing.AllocsPerRun(1000, func() {
			if err := rc.Verify(ex.body, sig); err != want {
				t.Fatalf("got %v, want %v", err, want)
			}
		})
		if allocs != 0 {
			t.Errorf("%v: got %v allocations, want 0", want, allocs)
		}
	}
}

func skipUnderRace(t *testing.T) {
	info, ok := debug.ReadBuildInfo()
	if ok && slices.Contains(info.Settings, debug.BuildSetting{Key: "-race", Value: "true"}) {
		t.Skip("under -race, a sync.Pool drops items at random")
	}
}

// FuzzVerify checks that each verifier agrees with the reference.
func FuzzVerify(f *testing.F) {
	for _, ex := range examples(f) {
		f.Add(secret, ex.body, ex.sig)
		f.Add("", ex.body, reference("", ex.body))
		f.Add(secret, ex.body, strings.ToUpper(ex.sig))
		f.Add(secret, ex.body, "sha256="+ex.sig)
		f.Add(secret, ex.body, "")
		f.Add(" \n", ex.body, "") // Verify takes any secret
	}
	wellFormed := regexp.MustCompile(`\A[0-9a-f]{64}\z`)
	f.Fuzz(func(t *testing.T, secret string, body []byte, sig string) {
		valid := reference(secret, body)
		n := min(len(sig), len(valid))
		// A fuzzer cannot guess a signature, so also try the valid one, and
		// mixtures of it and the fuzzer's.
		for _, sig := range []string{sig, valid, sig[:n] + valid[n:], valid[:len(valid)-n] + sig[:n], valid + sig} {
			var want error
			switch {
			case secret == "":
				want = hmacverify.ErrEmptySecret
			case sig == "":
				want = hmacverify.ErrMissingSignature
			case !wellFormed.MatchString(sig):
				want = hmacverify.ErrMalformedSignature
			case sig != valid:
				want = hmacverify.ErrSignatureMismatch
			}
			for _, v := range verifiers {
				if v.name == "Receiver.Verify" && strings.TrimRight(secret, "\r\n") != secret {
					continue // New rejects it
				}
				if err := v.verify(secret, body, sig); !errors.Is(err, want) || (err == nil) != (want == nil) {
					t.Errorf("%s(%q, %q, %q): got %v, want %v", v.name, secret, body, sig, err, want)
				}
			}
		}
	})
}

// BenchmarkCheck compares the cost of verifying one body. The baseline is
// sha256.Sum256; "new HMAC" is what most services do for each request.
func BenchmarkCheck(b *testing.B) {
	for _, size := range []struct {
		name string
		body []byte
	}{
		{"424B", examples(b)[0].body},
		{"1MiB", bytes.Repeat([]byte{'x'}, 1<<20)},
	} {
		body, sig := size.body, reference(secret, size.body)
		rc := newReceiver(b, secret)
		check := func(name string, accepted func() bool) {
			b.Run(size.name+"/"+name, func(b *testing.B) {
				b.SetBytes(int64(len(body)))
				b.ReportAllocs()
				for b.Loop() {
					if !accepted() {
						b.Fatal("rejected")
					}
				}
			})
		}
		digest := sha256.Sum256(body)
		check("sha256.Sum256", func() bool { return sha256.Sum256(body) == digest })
		check("new HMAC", func() bool { return hmac.Equal([]byte(reference(secret, body)), []byte(sig)) })
		check("Verify", func() bool { return hmacverify.Verify(secret, body, sig) == nil })
		check("Receiver.Verify", func() bool { return rc.Verify(body, sig) == nil })
	}
}
