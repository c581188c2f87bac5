// Package proxy gives programs in other languages the test authority: an HTTP proxy
// on loopback that ends TLS itself. Nothing leaves the machine.
package proxy

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/tokenkeep/tokenkeep/entratest"
)

// Proxy is a running proxy.
type Proxy struct {
	Env   []string // what the environment of a program needs to use it
	close func()
}

// Close ends the proxy.
func (p *Proxy) Close() { p.close() }

// Start starts a proxy that asks with the test authority's client. It writes its
// certificate into dir.
func Start(client *http.Client, dir string) (*Proxy, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	from, to := time.Now().Add(-time.Hour), time.Now().Add(24*time.Hour)
	root := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, NotBefore: from, NotAfter: to,
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature, SubjectKeyId: []byte{1}}
	rootDER, err := x509.CreateCertificate(rand.Reader, root, root, &key.PublicKey, key)
	if err != nil {
		return nil, err
	}
	ca, err := x509.ParseCertificate(rootDER)
	if err != nil {
		return nil, err
	}
	var serial atomic.Int64
	config := func(host string) *tls.Config {
		return &tls.Config{NextProtos: []string{"http/1.1"}, GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			leaf := &x509.Certificate{SerialNumber: big.NewInt(2 + serial.Add(1)), Subject: pkix.Name{CommonName: host}, DNSNames: []string{host}, NotBefore: from, NotAfter: to,
				KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}, AuthorityKeyId: []byte{1}}
			der, err := x509.CreateCertificate(rand.Reader, leaf, ca, &key.PublicKey, key)
			return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, err
		}}
	}
	bundle := filepath.Join(dir, "ca.pem")
	if err := os.WriteFile(bundle, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: rootDER}), 0o600); err != nil {
		return nil, err
	}
	serve := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Host == "management.azure.com" {
			w.Header().Set("Content-Type", "application/json")
			_ = json.NewEncoder(w).Encode(map[string]any{"value": resources(r.URL.Path)})
			return
		}
		out, err := http.NewRequestWithContext(r.Context(), r.Method, "https://"+r.Host+r.URL.RequestURI(), r.Body)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		out.Header.Set("Content-Type", r.Header.Get("Content-Type"))
		answer, err := client.Do(out)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		defer answer.Body.Close()
		w.Header().Set("Content-Type", answer.Header.Get("Content-Type"))
		w.WriteHeader(answer.StatusCode)
		_, _ = io.Copy(w, answer.Body)
	})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	tunnels := make(chan net.Conn)
	inside := &http.Server{Handler: serve}
	end := make(chan struct{})
	go func() { _ = inside.Serve(listener{l, tunnels, end}) }()
	proxy := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host, _, err := net.SplitHostPort(r.Host)
		if r.Method != http.MethodConnect || err != nil {
			http.Error(w, "CONNECT only", http.StatusMethodNotAllowed)
			return
		}
		c, _, err := w.(http.Hijacker).Hijack()
		if err != nil {
			return
		}
		fmt.Fprint(c, "HTTP/1.1 200 OK\r\n\r\n")
		select {
		case tunnels <- tls.Server(c, config(host)):
		case <-end:
			c.Close()
		}
	})}
	go func() { _ = proxy.Serve(l) }()
	stop := func() {
		close(end)
		proxy.Close()
		inside.Close()
	}
	return &Proxy{[]string{"HTTPS_PROXY=http://" + l.Addr().String(), "HTTP_PROXY=", "NO_PROXY=", "no_proxy=", "REQUESTS_CA_BUNDLE=" + bundle, "AZURE_CORE_COLLECT_TELEMETRY=false"}, stop}, nil
}

// resources is what Azure's resource manager has: one tenant with one
// subscription.
func resources(path string) []any {
	switch path {
	case "/tenants":
		return []any{map[string]any{"id": "/tenants/" + entratest.Contoso, "tenantId": entratest.Contoso}}
	case "/subscriptions":
		const id = "44444444-4444-4444-4444-444444444444"
		return []any{map[string]any{"id": "/subscriptions/" + id, "subscriptionId": id, "displayName": "test", "state": "Enabled", "tenantId": entratest.Contoso}}
	}
	return []any{}
}

// listener accepts the connections of a channel until end is closed.
type listener struct {
	net.Listener
	conns <-chan net.Conn
	end   <-chan struct{}
}

func (l listener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.end:
		return nil, net.ErrClosed
	}
}

func (l listener) Close() error { return nil }
