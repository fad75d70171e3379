// Command kubernetes is the token authenticator of a Kubernetes API server, without the rest of it.
//
// Its argument is a file with an AuthenticationConfiguration. For each token, a line of standard input, it
// prints a line of JSON: the user, or why there is none.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"os"
	"time"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apiserver/pkg/apis/apiserver"
	"k8s.io/apiserver/pkg/apis/apiserver/install"
	"k8s.io/apiserver/pkg/apis/apiserver/validation"
	authenticationcel "k8s.io/apiserver/pkg/authentication/cel"
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
	if err := run(os.Args[1]); err != nil {
		log.Fatal(err)
	}
}

func run(file string) error {
	config, err := read(file)
	if err != nil {
		return err
	}
	authenticator, err := start(config.JWT[0])
	if err != nil {
		return fmt.Errorf("starting the authenticator: %w", err)
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
