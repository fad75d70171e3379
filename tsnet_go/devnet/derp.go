package devnet

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"time"

	"tailscale.com/derp/derpserver"
	"tailscale.com/tailcfg"
)

// derpRegion is the only region; 900 to 999 are reserved for private use.
const derpRegion = 900

// newDERPServer returns the relay: HTTPS with an upgrade to DERP on one path.
func (d *Devnet) newDERPServer() *http.Server {
	mux := http.NewServeMux()
	mux.Handle("/derp", derpserver.Handler(d.derp))
	mux.HandleFunc("/derp/probe", derpserver.ProbeHandler)
	mux.HandleFunc("/derp/latency-check", derpserver.ProbeHandler)
	mux.HandleFunc("/generate_204", derpserver.ServeNoContent)
	mux.HandleFunc("/", serveUnknown)
	srv := d.httpServer(mux)
	// DERP hijacks the connection, which HTTP/2 does not allow.
	srv.TLSNextProto = map[string]func(*http.Server, *tls.Conn, http.Handler){}
	return srv
}

func (d *Devnet) derpTLS(cert tls.Certificate) *tls.Config {
	cfg := &tls.Config{
		MinVersion:     tls.VersionTLS12,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return &cert, nil },
	}
	d.derp.ModifyTLSConfigToAddMetaCert(cfg) // saves clients a round trip
	return cfg
}

// newDERPCert returns a self-signed certificate, which the DERP map pins. It is valid for
// as long as a state directory may be used.
func newDERPCert(now time.Time) (certDER, keyDER []byte, err error) {
	priv, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return nil, nil, err
	}
	tmpl := &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: "devnet DERP"},
		IPAddresses:  []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore:    now.Add(-24 * time.Hour),
		NotAfter:     now.AddDate(20, 0, 0),
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	certDER, err = x509.CreateCertificate(rand.Reader, tmpl, tmpl, priv.Public(), priv)
	if err != nil {
		return nil, nil, err
	}
	keyDER, err = x509.MarshalPKCS8PrivateKey(priv)
	return certDER, keyDER, err
}

func loadDERPCert(certDER, keyDER []byte) (tls.Certificate, error) {
	priv, err := x509.ParsePKCS8PrivateKey(keyDER)
	if err != nil {
		return tls.Certificate{}, err
	}
	leaf, err := x509.ParseCertificate(certDER)
	if err != nil {
		return tls.Certificate{}, err
	}
	return tls.Certificate{Certificate: [][]byte{certDER}, PrivateKey: priv, Leaf: leaf}, nil
}

// newDERPMap returns a DERP map with only this relay and STUN server.
func newDERPMap(certDER []byte, derpPort, stunPort int) *tailcfg.DERPMap {
	return &tailcfg.DERPMap{
		OmitDefaultRegions: true,
		Regions: map[int]*tailcfg.DERPRegion{derpRegion: {
			RegionID:   derpRegion,
			RegionCode: "dev",
			RegionName: "Devnet",
			Nodes: []*tailcfg.DERPNode{{
				Name:     fmt.Sprintf("%da", derpRegion),
				RegionID: derpRegion,
				HostName: loopbackIP,
				IPv4:     loopbackIP,
				IPv6:     "none",
				CertName: fmt.Sprintf("sha256-raw:%x", sha256.Sum256(certDER)),
				DERPPort: derpPort,
				STUNPort: stunPort,
			}},
		}},
	}
}
