package examples_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	"example.com/hmacverify"
)

// write opens a connection and writes request.
func write(t *testing.T, addr, request string) *net.TCPConn {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(patience + 10*time.Second))
	io.WriteString(conn, request)
	return conn.(*net.TCPConn)
}

// read returns the status of a response, its headers but those that net/http
// adds, and its text.
func read(t *testing.T, conn net.Conn) string {
	t.Helper()
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Errorf("no response: %v", err)
		return ""
	}
	text, err := io.ReadAll(resp.Body)
	resp.Header.Del("Date")
	resp.Header.Del("Content-Length")
	all := fmt.Sprint(resp.StatusCode, " ", resp.Header, " ", string(text), err)
	return strings.TrimSuffix(all, "<nil>")
}

// delivery returns a request with a valid signature, and its DeliveryID.
func delivery(body string) (request, id string) {
	sig := hmacverify.Sign("secr3t", []byte(body))
	request = fmt.Sprintf("POST / HTTP/1.1\r\nHost: x\r\nX-Guuru-Hmac-Sha256: %s\r\n"+
		"Content-Length: %d\r\n\r\n%s", sig, len(body), body)
	return request, hmacverify.DeliveryID("", sig)
}

func TestGatewayRequest(t *testing.T) {
	t.Parallel()
	requests, from := make(chan string, 2), map[string]bool{}
	back := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if from[r.RemoteAddr] {
			t.Error("a connection has a second delivery")
		}
		from[r.RemoteAddr] = true
		body, err := io.ReadAll(r.Body)
		requests <- fmt.Sprintf("%s %s %s %q %d %s %v",
			r.Method, r.Host, r.RequestURI, r.Header, r.ContentLength, body, err)
	}))
	defer back.Close()
	// Of the addresses of this machine, net/http uses a proxy for this one.
	host := strings.Replace(back.Listener.Addr().String(), "127.0.0.1", "0.0.0.0", 1)
	const proxy = "HTTP_PROXY=http://127.0.0.1:1"
	url := "http://" + host + "/hooks//a%2Fb?x=1;y=%zz"
	gateway := start(t, []string{secret, proxy}, "gateway", "-upstream", url)
	body, sig := documented(t, 2)
	signed := "X-Guuru-Hmac-Sha256: " + sig + "\r\n"
	length := fmt.Sprintf("Content-Length: %d\r\n\r\n%s", len(body), body)
	chunked := fmt.Sprintf("Transfer-Encoding: chunked\r\nTrailer: X-Guuru-Event\r\n\r\n"+
		"5\r\n%s\r\n%x\r\n%s\r\n0\r\nX-Guuru-Event: trailer\r\n\r\n", body[:5], len(body)-5, body[5:])
	want := fmt.Sprintf(`POST %s /hooks//a%%2Fb?x=1;y=%%zz map["Connection":["close"] `+
		`"Content-Length":["%d"] "Content-Type":["application/json"] "Idempotency-Key":["a key"] `+
		`"X-Guuru-Event":["chat-rated" "chat-closed"] "X-Guuru-Hmac-Sha256":["%s"] `+
		`"X-Guuru-New-2":["new"]] %d %s <nil>`, host, len(body), sig, len(body), body)
	signed += "content-type: application/json\r\nIdempotency-Key: a key\r\n" +
		"X-Guuru-Event: chat-rated\r\nX-Guuru-Event: chat-closed\r\nX-GUURU-New-2: new\r\n"
	const post = "POST / HTTP/1.1\r\nHost: x\r\n"
	const get = "GET / HTTP/1.1\r\nHost: x\r\n"
	const elsewhere = "POST http://user:pw@elsewhere.example/admin HTTP/1.1\r\nHost: x\r\n"
	for _, tc := range []struct{ name, request, want string }{
		{"plain", post + signed + length, "200"},
		{"chunks and a trailer", post + signed + chunked, "200"},
		{"another path", "POST /../admin?x=2#y HTTP/1.1\r\nHost: x\r\n" + signed + length, "200"},
		{"another URL", elsewhere + signed + length, "200"},
		{"upgrade", post + "Connection: Upgrade\r\nUpgrade: websocket\r\n" + signed + length, "200"},
		{"headers that proxies remove", post + "Connection: X-Guuru-Event, Idempotency-Key\r\n" +
			"Te: trailers\r\n" + signed + length, "200"},
		{"other headers", post + "Authorization: Basic x\r\nCookie: a=b\r\nX-Forwarded-For: x\r\n" +
			"User-Agent: Guuru\r\nAccept-Encoding: gzip\r\nX-Http-Method-Override: DELETE\r\n" +
			signed + length, "200"},
		{"headers that backends may take for ours", post + "X_Guuru_Event: x\r\n" +
			"X-Guuru-Hmac_Sha256: x\r\nX-Guuru-Hmac.Sha256: x\r\nX-Guuru-Hmac!Sha256: x\r\n" +
			"X-Guuru: x\r\nX-Guuru-: x\r\nMy-X-Guuru-Event: x\r\nContent-Type2: x\r\n" +
			signed + length, "200"},
		{"forged", post + signed + strings.ToUpper(length), "400"},
		{"GET", get + signed + length, "405"},
	} {
		if got := read(t, write(t, gateway.addr, tc.request)); !strings.HasPrefix(got, tc.want) {
			t.Fatalf("%s: got %q, want %q\n%s", tc.name, got, tc.want, gateway.logged())
		}
		if tc.want != "200" {
			continue
		}
		if got := <-requests; got != want {
			t.Errorf("%s: the backend received %s\nwant %s", tc.name, got, want)
		}
	}
	if len(requests) > 0 {
		t.Errorf("the backend received %s, too", <-requests)
	}
}

func TestGatewayResponse(t *testing.T) {
	t.Parallel()
	responses := make(chan string, 1)
	back := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		conn, _, _ := w.(http.Hijacker).Hijack()
		io.WriteString(conn, <-responses)
		conn.Close()
	}))
	defer back.Close()
	gateway := start(t, []string{secret}, "gateway", "-upstream", back.URL+"/path?token=hidden")
	big := strings.Repeat("x", 1<<20)
	const info, warn = "INFO backend responded", "WARN backend responded"
	const failed = "ERROR no usable response"
	const created = "201 Created\r\nContent-Type: text/x\r\nSet-Cookie: a=b\r\nX-Guuru-Event: x\r\n"
	for _, tc := range []struct{ name, response, want, log string }{
		{"created", created + "Content-Length: 2\r\n\r\nhi", "201 map[Content-Type:[text/x]] hi", info},
		{"no Content-Type", "200 OK\r\nContent-Length: 6\r\n\r\n<html>", "200 map[] <html>", info},
		{"no length", "200 OK\r\n\r\nhi", "200 map[] hi", info},
		{"no content", "204 No Content\r\n\r\n", "204 map[] ", info},
		{"not modified", "304 Not Modified\r\n\r\n", "304 map[] ", warn},
		{"redirect", "307 Moved\r\nLocation: /x\r\nContent-Length: 2\r\n\r\nhi", "307 map[] hi", warn},
		{"unavailable", "503 Unavailable\r\nContent-Length: 0\r\n\r\n", "503 map[] ", warn},
		{"unknown status", "999 X\r\nContent-Length: 0\r\n\r\n", "999 map[] ", warn},
		{"status out of range", "099 X\r\nContent-Length: 2\r\n\r\nhi", "502 map[] ", failed},
		{"switching protocols", "101 X\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n",
			"502 map[] ", failed},
		{"no response", "", "502 map[] ", failed},
		{"truncated", "200 OK\r\nContent-Type: x\r\nContent-Length: 9\r\n\r\nhi", "502 map[] ", failed},
		{"at the limit", "200 OK\r\nContent-Length: 1048576\r\n\r\n" + big, "200 map[] " + big, info},
		{"over the limit", "200 OK\r\n\r\nx" + big, "502 map[] ", failed},
		{"no backend", "", "502 map[] ", failed},
	} {
		responses <- "HTTP/1.1 " + tc.response
		if tc.name == "no backend" {
			back.Close()
		}
		request, id := delivery(strconv.Quote(tc.name))
		if got := read(t, write(t, gateway.addr, request)); got != tc.want {
			t.Errorf("%s: got %.99q, want %.99q", tc.name, got, tc.want)
		}
		gateway.waitForLog(t, tc.log+" id="+id+" status="+tc.want[:3])
		if n := strings.Count(gateway.logged(), id); n != 1 {
			t.Errorf("%s: got %d lines in the log, want 1\n%s", tc.name, n, gateway.logged())
		}
	}
	if strings.Contains(gateway.logged(), "hidden") {
		t.Errorf("the log shows the URL of the backend\n%s", gateway.logged())
	}
}

func TestGatewaySenderLeaves(t *testing.T) {
	t.Parallel()
	ended := make(chan error, 3)
	back := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		select {
		case <-r.Context().Done():
		case <-time.After(500 * time.Millisecond):
		}
		ended <- r.Context().Err()
	}))
	defer back.Close()
	gateway := start(t, []string{secret}, "gateway", "-upstream", back.URL)
	for name, leave := range map[string]func(*net.TCPConn){
		"half-closes":        func(c *net.TCPConn) { c.CloseWrite() },
		"closes":             func(c *net.TCPConn) { c.Close() },
		"closes a bit later": func(c *net.TCPConn) { time.Sleep(200 * time.Millisecond); c.Close() },
	} {
		request, id := delivery(strconv.Quote(name))
		conn := write(t, gateway.addr, request)
		leave(conn)
		gateway.waitForLog(t, "INFO backend responded id="+id+" status=200")
		if err := <-ended; err != nil {
			t.Errorf("sender %s: the backend's work ends with %v", name, err)
		}
		if name == "half-closes" && read(t, conn) != "200 map[] " {
			t.Errorf("sender %s: the response is not 200", name)
		}
	}
}

// One delivery gets no response, one gets a part.
func TestGatewayBackendHangs(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("waits for 30 seconds")
	}
	release := make(chan bool)
	back := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ContentLength == int64(len(`"part"`)) {
			io.WriteString(w, "part")
			w.(http.Flusher).Flush()
		}
		<-release
	}))
	defer back.Close()
	defer close(release)
	gateway := start(t, []string{secret}, "gateway", "-upstream", back.URL)
	begin := time.Now()
	var conns []net.Conn
	for _, body := range []string{"{}", `"part"`} {
		request, _ := delivery(body)
		conns = append(conns, write(t, gateway.addr, request))
	}
	for i, conn := range conns {
		got, after := read(t, conn), time.Since(begin)
		if got != "502 map[] " || after < 25*time.Second || after > 35*time.Second {
			t.Errorf("delivery %d: got %q after %v, want 502 after 30s", i, got, after)
		}
	}
}
