// Command kubernetes is the token authenticator of a Kubernetes API server, without the rest of it.
//
// Its first argument is a file with an AuthenticationConfiguration. For each token, a line of standard input, it
// prints a line of JSON: the user, or why there is none. With a second argument, a file with key and certificate,
// it is a server instead, which prints its address and tells authenticated clients who they are.
package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"net/http"
	"os"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apiserver/pkg/apis/apiserver"
	"k8s.io/apiserver/pkg/apis/apiserver/install"
	"k8s.io/apiserver/pkg/apis/apiserver/validation"
	authenticationcel "k8s.io/apiserver/pkg/authentication/cel"
	"k8s.io/apiserver/pkg/authentication/request/bearertoken"
	"k8s.io/apiserver/pkg/cel/environment"
	"k8s.io/apiserver/pkg/server/dynamiccertificates"
	"k8s.io/apiserver/plugin/pkg/authenticator/token/oidc"
)

type answer struct {
	User   string   `json:"user,omitempty"`
	UID    string   `json:"uid,omitempty"`
	Groups []string `json:"groups,omitempty"`
	Error  string   `json:"error,omitempty"`
}

func main() {
	if err := run(os.Args[1], os.Args[2:]); err != nil {
		log.Fatal(err)
	}
}

func run(file string, certificate []string) error {
	config, err := read(file)
	if err != nil {
		return err
	}
	authenticator, err := start(config.JWT[0])
	if err != nil {
		return fmt.Errorf("starting the authenticator: %w", err)
	}
	if len(certificate) > 0 {
		return serve(authenticator, certificate[0])
	}
	out := json.NewEncoder(os.Stdout)
	tokens := bufio.NewScanner(os.Stdin)
	tokens.Buffer(nil, 1<<20)
	for tokens.Scan() {
		if err := out.Encode(authenticate(authenticator, tokens.Text())); err != nil {
			return err
		}
	}
	return tokens.Err()
}

// read decodes and validates the file as kube-apiserver does.
func read(file string) (*apiserver.AuthenticationConfiguration, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	scheme := runtime.NewScheme()
	install.Install(scheme)
	codecs := serializer.NewCodecFactory(scheme, serializer.EnableStrict)
	object, err := runtime.Decode(codecs.UniversalDecoder(), data)
	if err != nil {
		return nil, fmt.Errorf("decoding %s: %w", file, err)
	}
	config, ok := object.(*apiserver.AuthenticationConfiguration)
	if !ok || len(config.JWT) != 1 {
		return nil, fmt.Errorf("%s is not an AuthenticationConfiguration with one issuer", file)
	}
	compiler := authenticationcel.NewCompiler(environment.MustBaseEnvSet(environment.DefaultCompatibilityVersion()))
	return config, validation.ValidateAuthenticationConfiguration(compiler, config, nil).ToAggregate()
}

// start returns when the authenticator has fetched the discovery document.
func start(issuer apiserver.JWTAuthenticator) (oidc.AuthenticatorTokenWithHealthCheck, error) {
	options := oidc.Options{JWTAuthenticator: issuer, SupportedSigningAlgs: oidc.AllValidSigningAlgorithms()}
	if issuer.Issuer.CertificateAuthority != "" {
		ca, err := dynamiccertificates.NewStaticCAContent("issuer", []byte(issuer.Issuer.CertificateAuthority))
		if err != nil {
			return nil, err
		}
		options.CAContentProvider = ca
	}
	authenticator, err := oidc.New(context.Background(), options)
	if err != nil {
		return nil, err
	}
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		err := authenticator.HealthCheck()
		if err == nil || time.Now().After(deadline) {
			return authenticator, err
		}
	}
}

func authenticate(authenticator oidc.AuthenticatorTokenWithHealthCheck, token string) answer {
	response, ok, err := authenticator.AuthenticateToken(context.Background(), token)
	if err == nil && !ok {
		err = errors.New("not a token of this issuer")
	}
	if err != nil {
		return answer{Error: err.Error()}
	}
	user := response.User
	return answer{User: user.GetName(), UID: user.GetUID(), Groups: user.GetGroups()}
}

// serve answers every request of an authenticated client with a SelfSubjectReview, and the others with 401.
func serve(authenticator oidc.AuthenticatorTokenWithHealthCheck, certificate string) error {
	pair, err := tls.LoadX509KeyPair(certificate, certificate)
	if err != nil {
		return err
	}
	listener, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{pair}})
	if err != nil {
		return err
	}
	fmt.Println(listener.Addr())
	requests := bearertoken.New(authenticator)
	return http.Serve(listener, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		response, ok, err := requests.AuthenticateRequest(r)
		if err != nil || !ok {
			w.WriteHeader(http.StatusUnauthorized)
			json.NewEncoder(w).Encode(metav1.Status{
				TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Status"},
				Status:   metav1.StatusFailure,
				Reason:   metav1.StatusReasonUnauthorized,
				Code:     http.StatusUnauthorized,
			})
			return
		}
		user := response.User
		w.WriteHeader(http.StatusCreated)
		json.NewEncoder(w).Encode(authenticationv1.SelfSubjectReview{
			TypeMeta: metav1.TypeMeta{APIVersion: "authentication.k8s.io/v1", Kind: "SelfSubjectReview"},
			Status: authenticationv1.SelfSubjectReviewStatus{UserInfo: authenticationv1.UserInfo{
				Username: user.GetName(), UID: user.GetUID(), Groups: user.GetGroups(),
			}},
		})
	}))
}
