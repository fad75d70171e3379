// Command manifests checks manifests as a Kubernetes API server does: the types of their fields, and the restricted
// profile of Pod Security Admission.
//
// Its arguments are files with one object each. For each, it prints a line of JSON: the object's kind and name, and
// what is wrong with it.
package main

import (
	"encoding/json"
	"fmt"
	"log"
	"os"

	appsv1 "k8s.io/api/apps/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/pod-security-admission/api"
	"k8s.io/pod-security-admission/policy"
)

type answer struct {
	Kind  string `json:"kind"`
	Name  string `json:"name"`
	Error string `json:"error"`
}

func main() {
	out := json.NewEncoder(os.Stdout)
	for _, file := range os.Args[1:] {
		found, err := check(file)
		if err != nil {
			log.Fatalf("%s: %v", file, err)
		}
		if err := out.Encode(found); err != nil {
			log.Fatal(err)
		}
	}
}

func check(file string) (answer, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return answer{}, err
	}
	codecs := serializer.NewCodecFactory(scheme.Scheme, serializer.EnableStrict)
	object, kind, err := codecs.UniversalDeserializer().Decode(data, nil, nil)
	if runtime.IsStrictDecodingError(err) {
		return answer{Error: err.Error()}, nil
	}
	if err != nil {
		return answer{}, fmt.Errorf("decoding: %w", err)
	}
	named, err := meta.Accessor(object)
	if err != nil {
		return answer{}, err
	}
	forbidden, err := restricted(object)
	return answer{Kind: kind.Kind, Name: named.GetName(), Error: forbidden}, err
}

// restricted returns what the restricted profile forbids; nothing if object has no pods.
func restricted(object runtime.Object) (string, error) {
	deployment, ok := object.(*appsv1.Deployment)
	if !ok {
		return "", nil
	}
	evaluator, err := policy.NewEvaluator(policy.DefaultChecks(), nil)
	if err != nil {
		return "", fmt.Errorf("the profile: %w", err)
	}
	level := api.LevelVersion{Level: api.LevelRestricted, Version: api.LatestVersion()}
	template := &deployment.Spec.Template
	results := evaluator.EvaluatePod(level, &template.ObjectMeta, &template.Spec)
	found := policy.AggregateCheckResults(results)
	return found.ForbiddenDetail(), nil
}
