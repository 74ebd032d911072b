// Verify explains why a signature does not match. It undoes common changes to
// bodies, secrets, and signatures until they match, and says what it undid:
//
//	GUURU_SECRET=secr3t go run ./examples/verify deliveries/*.json
//
// A file holds a body; - is standard input. The signature is -sig, or the 64 hex
// digits in the file's name. GUURU_SECRET_PREVIOUS is tried, too. The exit status
// is 0 only if all files are valid. No line shows a secret, a computed signature,
// or part of a body.
package main

import (
	"bytes"
	"cmp"
	"compress/gzip"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"flag"
	"fmt"
	"html"
	"io"
	"log"
	"net/url"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"unicode/utf16"

	"example.com/hmacverify"
)

func main() {
	const usage = "verify [-sig SIGNATURE] FILE..."
	signal.Ignore(syscall.SIGPIPE) // a closed pipe is a failed write
	flags := flag.NewFlagSet("", flag.ContinueOnError)
	flags.SetOutput(io.Discard) // bad usage is one line
	sig := flags.String("sig", "", "")
	if err := flags.Parse(os.Args[1:]); err != nil { // also for -h
		log.Fatal(oneLine(err.Error()), "; usage: ", usage)
	}
	if flags.NArg() == 0 || os.Getenv("GUURU_SECRET") == "" {
		log.Fatal("no GUURU_SECRET, or no file: ", usage)
	}
	status := 0
	for _, file := range flags.Args() {
		result := verify(file, *sig)
		if !strings.HasPrefix(result, "valid") {
			status = 1
		}
		if _, err := fmt.Println(oneLine(file + ": " + result)); err != nil {
			log.Fatal(err)
		}
	}
	os.Exit(status)
}

// oneLine escapes control characters, which a file's name may contain.
func oneLine(s string) string {
	quote := func(c string) string { return strings.Trim(fmt.Sprintf("%+q", c), `"`) }
	control := regexp.MustCompile(`[\pC\p{Zl}\p{Zp}]`)
	return control.ReplaceAllStringFunc(strings.ToValidUTF8(s, "?"), quote)
}

const (
	maxBytes   = 2 << 20 // of a file, and of what is in a compressed one
	maxChanges = 3       // of each value
)

func read(file string) ([]byte, error) {
	if file != "-" {
		info, err := os.Stat(file) // reading a FIFO would wait for a writer
		if err == nil && (!info.Mode().IsRegular() || info.Size() > maxBytes) {
			return nil, fmt.Errorf("not a regular file of at most %d bytes", maxBytes)
		}
		return os.ReadFile(file)
	}
	body, err := io.ReadAll(io.LimitReader(os.Stdin, maxBytes+1))
	if len(body) > maxBytes {
		return nil, fmt.Errorf("larger than %d bytes", maxBytes)
	}
	return body, err
}

type undo = func(string) string

// A change is what may have happened to a value. undo returns the value before
// it. If it did not happen, undo may return anything: no signature would fit.
type change struct {
	predicate string
	undo      undo
}

// A variant is a value as it may have been before changes.
type variant struct {
	value   string
	changes []string // as sentences, the last change first
}

// verify returns an error, "valid", what to fix, or the best guess.
func verify(file, sig string) string {
	const current, previous = "GUURU_SECRET", "GUURU_SECRET_PREVIOUS"
	body, err := read(file)
	if err != nil {
		return err.Error()
	}
	sig = cmp.Or(sig, append(inName.FindStringSubmatch(filepath.Base(file)), "", "")[1])
	if hmacverify.Verify(os.Getenv(current), body, sig) == nil {
		return "valid"
	}
	if hmacverify.Verify(os.Getenv(previous), body, sig) == nil {
		return "valid with " + previous
	}
	sigs := search("the signature", sig, signatureChanges)
	sigs = slices.DeleteFunc(sigs, func(v variant) bool { return !isSig(v.value) })
	for _, changes := range [][]change{bodyChanges[:len(bodyChanges)-1], bodyChanges} {
		bodies := search("the body", string(body), changes)
		for _, name := range []string{current, previous} {
			found := match(bodies, search(name, os.Getenv(name), secretChanges), sigs)
			if found == nil {
				continue
			}
			line := "to fix: " + strings.Join(found, "; ")
			if name == previous && !strings.Contains(line, previous) {
				line += "; " + previous + " is the secret that fits"
			}
			if rewritten.MatchString(line) { // a receiver must not undo that
				line += "; JSON was parsed and written again: verify the raw bytes before that"
			}
			return line
		}
	}
	return "not valid: " + guess(string(body), sig, len(sigs) > 0)
}

// search returns value and, within limits, what it may have been before changes.
func search(subject, value string, changes []change) []variant {
	found, seen := []variant{{value: value}}, map[string]bool{"": true, value: true}
	budget := 32 << 20 // in bytes that are read or written
	for i := 0; i < len(found) && len(found[i].changes) < maxChanges && budget > 0; i++ {
		v := found[i] // found grows
		for _, c := range changes {
			before := c.undo(v.value)
			budget -= len(v.value) + len(before)
			if !seen[before] {
				seen[before] = true
				found = append(found, variant{before, append(slices.Clip(v.changes), subject+" "+c.predicate)})
			}
		}
	}
	return found
}

// match returns the fewest changes that explain a signature, or nil.
func match(bodies, secrets, sigs []variant) []string {
	budget := 128 << 20 // in bytes; keying costs as much as 1000
	for n := range 2*maxChanges + 1 {
		for _, secret := range secrets {
			for _, body := range bodies {
				for _, sig := range sigs {
					if len(body.changes)+len(secret.changes) != n || budget < 0 {
						continue
					}
					budget -= 1000 + len(secret.value) + len(body.value)
					if hmacverify.Verify(secret.value, []byte(body.value), sig.value) == nil {
						return slices.Concat(body.changes, secret.changes, sig.changes)
					}
				}
			}
		}
	}
	return nil
}

// guess says what may be wrong with values that no change explains.
func guess(body, sig string, ok bool) string {
	rest := strings.TrimLeft(sig, "0123456789abcdefABCDEF")
	isCut := len(sig) < 64 && rest == "" // 43 digits can be Base64
	isVariable := regexp.MustCompile(`^\W*(\$[\w{(]|\{\{)|^%\w+%$`).MatchString
	err := json.NewDecoder(strings.NewReader(body)).Decode(new(json.RawMessage))
	for _, row := range []struct {
		is   bool
		text string
	}{
		{sig == "", "no signature: set -sig, or put its 64 hex digits into the file's name"},
		{len(sig) == 64 && !ok, fmt.Sprintf("the signature has %.1q among its hex digits", rest)},
		{isCut || !ok, fmt.Sprint("the signature has ", len(sig), " characters, not 64 hex digits")},
		{isVariable(os.Getenv("GUURU_SECRET")), "GUURU_SECRET may be a variable that was not expanded " +
			"(what a shell or compose cuts from $ or # on cannot be recovered)"},
		{strings.TrimSpace(body) == "", "the body is empty: something may have consumed it"},
		{strings.Contains(body, "\ufffd"), "the body has U+FFFD: it may have been decoded as text"},
		{err == io.ErrUnexpectedEOF, "the body may be truncated: it ends before its JSON does"},
		{!json.Valid([]byte(body)), "the body is not JSON: it may have been extended, cut, or encoded"},
	} {
		if row.is {
			return row.text
		}
	}
	return "it may be another body, or another secret (a shell or compose may have cut it at $ or #)"
}

const (
	affixed = "has a prefix, quotes, spaces, or other text around it"
	inside  = "has spaces, line breaks, another case or alphabet, or no padding inside it"

	order = "id user name email isLead isUser locale question status language transcriptURL " +
		"rating category createdAt acceptedAt closedAt ratedAt" // in their order
)

var signatureChanges = []change{
	{"is in upper case", strings.ToLower},
	{"is Base64", then(unbase64, toHex)},
	{"is Base64 of its digits", unbase64},
	{"is one of several, joined by a comma", replace(`\s*[,;].*`, "")},
	{"is one of several, joined by a comma", replace(`^[^,;]*[,;]\s*`, "")},
	{"is one of several, joined by a comma", replace(`^.*[,;]\s*`, "")},
	{"is one of several, joined by a comma", replace(`\s*[,;][^,;]*$`, "")},
	{affixed, replace(`^([^,;]*[^,;0-9A-Fa-f])?([0-9A-Fa-f]{64})([^,;0-9A-Fa-f][^,;]*)?[,;]?$`, "$2")},
	{affixed, replace(`^[^,;]*[^,;\w+/-]([\w+/-]{43}=?|[\w+/-]{86}(==)?)([^,;\w+/=-].*)?$`, "$1")},
}

var secretChanges = []change{
	{"begins or ends with a line break", replace(`^[\r\n]+|([\r\n]|\\[rn])+$`, "")},
	{"has spaces around it", replace(`^[\t\v\f\p{Z}]+|[\t\v\f\p{Z}]+$`, "")},
	{"has invisible characters around it", replace(`^\p{Cf}+|\p{Cf}+$`, "")},
	{"has quotes around it", replace("^[\"'`\\p{Pi}\\p{Pf}„‚]+|[\"'`\\p{Pi}\\p{Pf}„‚]+$", "")},
	{"has a comment after it", replace(`(?s)\s+#.*`, "")},
	{"begins with a variable's name", replace(`^\s*(export\s+|set\s+|\$env:)?\w+\s*[=:]\s*`, "")},
	{"has $$ in place of $", replace(`\$\$`, "$$")}, // $$ stands for $ in the latter
	{"has backslashes before characters", replace(`(?s)\\(.)`, "$1")},
	{"has HTML entities", html.UnescapeString},
	{"is Base64", unbase64},
	{"is in hex", unhex},
	{"is percent-encoded", try(url.PathUnescape)},
	{"is percent-encoded", try(url.QueryUnescape)},
	{inside, joinWords},
	{inside, replace(`=+$`, "")},
	{inside, strings.NewReplacer("+", "-", "/", "_").Replace},
	{inside, then(unhex, toHex)},
	{inside, then(unbase64, toBase64)},
	{"was decoded from Base64, though Guuru signs with the text", toBase64},
	{"was decoded from hex, though Guuru signs with the text", toHex},
}

// bodyChanges has exact ones first: the first of equally many is named. The last
// is tried only if nothing else explains the signature.
var bodyChanges = []change{
	{"begins with a byte order mark", replace("^\ufeff", "")},
	{"has a line break at its end", func(s string) string { return strings.TrimRight(s, "\n\r") }},
	{"lost the line break at its end", func(s string) string { return s + "\n" }},
	{"lost the line break at its end", func(s string) string { return s + "\r\n" }},
	{"has CRLF in place of LF", strings.NewReplacer("\r\n", "\n").Replace},
	{"has spaces around it", strings.TrimSpace},
	{"has spaces or line breaks outside strings", compact},
	{"has escapes that JSON does not need", unescape},
	{"has its fields in another order", restoreOrder},
	{"has null in place of empty strings", replace(`:null\b`, `:""`)},
	{"lost its empty email", replace(`"name":"(?:[^"\\]|\\.)*"`, `$0,"email":""`)},
	{"is Base64", unbase64},
	{"is gzip", gunzip},
	{"is in hex", unhex},
	{"is percent-encoded, as in a form", try(url.PathUnescape)},
	{"is in a form", unform},
	{"is the value of payload in a form", then(replace(`^(.*&)?payload=([^&]*).*$`, "$2"), unform)},
	{"is a JSON string", unquote},
	{"has backslashes before quotes", then(withoutBareQuotes, replace(`\\(["'\\])`, "$1"))},
	{"has backslashes before quotes", then(withoutBareQuotes, replace(`\\(")`, "$1"))},
	{"is inside a JSON event", longestString(`"\s*\{(?:[^"\\]|\\.)*"`)},
	{"is in Base64 inside a JSON event", then(longestString(`"e[wy][^"\\]*"`), unbase64)}, // of {
	{"is inside a JSON event", longestString(`"(?:[^"\\]|\\.)*"`)},
	{"is inside a JSON event", lastObject},
	{"has HTTP headers before it", replace(`^(?:[^{]*\n)?(?:[<> ]*[\w-]+:[^\n]*\n)+[<> ]*\r?\n`, "")},
	{"has HTML entities", html.UnescapeString},
	{"is UTF-8 that was read as Latin-1 or Windows-1252", toWindows1252.Replace},
	{"is in Latin-1 or Windows-1252", fromWindows1252.Replace},
	{"is in UTF-16", decodeUTF16},
	{"has other text around it", replace(`(?s)^.*?(\{\s*[\\&"].*\}).*$`, "$1")}, // \" or &quot;
}

var (
	isSig  = regexp.MustCompile(`^[0-9a-f]{64}$`).MatchString
	inName = regexp.MustCompile(`(?:^|[^0-9A-Fa-f])([0-9A-Fa-f]{64})(?:$|[^0-9A-Fa-f])`)
	// chatBegins matches the beginning of an object with a field of a chat.
	chatBegins = regexp.MustCompile(
		`\{\s*"(id|user|question|status|language|transcriptURL|rating|category|\w+At)"\s*:`)
	// escape takes a pair of backslashes, so that what follows it is no escape.
	escape = regexp.MustCompile(`\\(u[dD][89abAB]..\\u[dD]...|u....|[/\\])`)
	// rewritten matches changes of a body that was parsed and written again.
	rewritten = regexp.MustCompile("outside strings|escapes that|another order|null in|empty email")
	// unform also takes a form that is only a name. Where quotes are, + is no space.
	unform = then(then(withoutBareQuotes, replace(`=$`, "")), try(url.QueryUnescape))
	unhex  = then(joinWords, try(hex.DecodeString))
	// unbase64 takes both alphabets, with and without padding.
	unbase64 = then(then(joinWords, strings.NewReplacer("-", "+", "_", "/").Replace),
		then(replace(`=+$`, ""), try(base64.RawStdEncoding.DecodeString)))
	unquote = func(s string) (text string) { json.Unmarshal([]byte(s), &text); return text }
	gunzip  = try(func(s string) ([]byte, error) {
		var r gzip.Reader
		r.Reset(strings.NewReader(s)) // Read returns its error, too
		return io.ReadAll(io.LimitReader(&r, maxBytes))
	})
)

func then(first, second undo) undo { return func(s string) string { return second(first(s)) } }

func replace(pattern, by string) undo {
	re := regexp.MustCompile(pattern)
	return func(s string) string { return re.ReplaceAllString(s, by) }
}

// try returns "" where f fails: what comes before the error is not the whole.
func try[T string | []byte](f func(string) (T, error)) undo {
	return func(s string) string {
		if v, err := f(s); err == nil {
			return string(v)
		}
		return ""
	}
}

func toBase64(s string) string  { return base64.StdEncoding.EncodeToString([]byte(s)) }
func toHex(s string) string     { return hex.EncodeToString([]byte(s)) }
func joinWords(s string) string { return strings.Join(strings.Fields(s), "") }

// withoutBareQuotes returns "" if a quote has no backslash before it.
func withoutBareQuotes(s string) string {
	if strings.Count(s, `"`) > strings.Count(s, `\"`) {
		return ""
	}
	return s
}

// longestString returns the longest string in JSON that matches pattern.
func longestString(pattern string) undo {
	re := regexp.MustCompile(pattern)
	return func(s string) string {
		all := append(re.FindAllString(compact(s), -1), "") // none if s is not JSON
		return unquote(slices.MaxFunc(all, func(a, b string) int { return len(a) - len(b) }))
	}
}

func lastObject(s string) string {
	var last json.RawMessage
	if all := chatBegins.FindAllStringIndex(s, -1); all != nil && json.Valid([]byte(s)) {
		json.NewDecoder(strings.NewReader(s[all[len(all)-1][0]:])).Decode(&last)
	}
	return string(last)
}

var fromWindows1252, toWindows1252 = windows1252()

// windows1252 also takes the controls that Latin-1 has at 0x80 to 0x9f.
func windows1252() (from, to *strings.Replacer) {
	var toText, toBytes []string
	for c := 0x80; c <= 0xff; c++ {
		b, text := string([]byte{byte(c)}), html.UnescapeString(fmt.Sprintf("&#%d;", c)) // 128: €
		toText = append(toText, b, text)
		toBytes = append(toBytes, text, b, string(rune(c)), b)
	}
	return strings.NewReplacer(toText...), strings.NewReplacer(toBytes...)
}

func decodeUTF16(s string) string {
	endian := map[bool]binary.ByteOrder{false: binary.LittleEndian, true: binary.BigEndian}
	units := make([]uint16, len(s)/2)
	binary.Decode([]byte(s), endian[strings.HasPrefix(s, "\xfe\xff")], units)
	return strings.TrimPrefix(string(utf16.Decode(units)), "\ufeff")
}

// compact returns "" if s is not JSON.
func compact(s string) string {
	var b bytes.Buffer
	json.Compact(&b, []byte(s))
	return b.String()
}

// unescape leaves the escapes that JSON needs, in their shortest form.
func unescape(s string) string {
	return escape.ReplaceAllStringFunc(s, func(e string) (c string) {
		if e == `\\` || json.Unmarshal([]byte(`"`+e+`"`), &c) != nil || c == "\ufffd" {
			return e // U+FFFD may be half of a pair
		}
		if quoted, _ := json.Marshal(c); c < " " || c == `"` || c == `\` {
			return string(quoted[1 : len(quoted)-1])
		}
		return c
	})
}

// restoreOrder only moves fields, also those of user. If one is unknown or
// doubled, or there are spaces, the length differs, and it returns "".
func restoreOrder(object string) string {
	var values map[string]json.RawMessage
	if strings.Count(object, `"user":`) > 1 || strings.Count(object, ":") > 1000 || // take much memory
		json.Unmarshal([]byte(object), &values) != nil {
		return ""
	}
	var fields []string
	for _, name := range strings.Fields(order) {
		if value := string(values[name]); value != "" {
			value = cmp.Or(restoreOrder(value), value)
			fields = append(fields, `"`+name+`":`+value)
		}
	}
	if ordered := "{" + strings.Join(fields, ",") + "}"; len(ordered) == len(object) {
		return ordered
	}
	return ""
}
