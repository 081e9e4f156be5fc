{{/*
One CRD of files/, or nothing where it should not be installed.
Takes a dict: root (the chart's scope), file, install (auto, always or never).

The schema's age is the pair of the labels release-version and crd-schema-revision; a CRD without them counts as the
oldest. `lookup` finds nothing in `helm template`, so that everything is rendered there.
*/}}
{{- define "sealane-crds.crd" -}}
{{- $root := .root -}}
{{- $crd := $root.Files.Get (printf "files/%s.yaml" .file) | fromYaml -}}
{{- $name := $crd.metadata.name -}}
{{- $there := lookup "apiextensions.k8s.io/v1" "CustomResourceDefinition" "" $name | default dict -}}
{{- $foreign := and $there (ne (include "sealane-crds.owned" (dict "root" $root "object" $there)) "true") -}}
{{- $newer := and $there (eq (include "sealane-crds.newer" (dict "there" $there "ours" $crd)) "true") -}}
{{- $wanted := ne .install "never" -}}
{{- if and (eq .install "auto") (or $foreign $newer) }}{{ $wanted = false }}{{ end -}}
{{- if and (eq .install "always") $newer -}}
{{- fail (printf "%s is installed with a newer schema than this chart's; install=always would lower it: set install to auto or never" $name) -}}
{{- end -}}
{{- if $wanted -}}
{{- $labels := dict
    "app.kubernetes.io/name" $root.Chart.Name
    "app.kubernetes.io/instance" $root.Release.Name
    "app.kubernetes.io/version" $root.Chart.AppVersion
    "app.kubernetes.io/managed-by" $root.Release.Service
    "app.kubernetes.io/part-of" "sealane"
    "helm.sh/chart" (printf "%s-%s" $root.Chart.Name ($root.Chart.Version | replace "+" "_")) -}}
{{- $_ := set $crd.metadata "labels" (merge (dict) ($crd.metadata.labels | default dict) $labels $root.Values.commonLabels) -}}
{{- /* Deleting a CRD deletes every object of its kind, whoever made it: never by an uninstall. */ -}}
{{- $_ := set $crd.metadata "annotations" (merge (dict "helm.sh/resource-policy" "keep") ($crd.metadata.annotations | default dict)) -}}
{{- toYaml $crd -}}
{{- end -}}
{{- end -}}

{{/* "true" where this release installed the object. */}}
{{- define "sealane-crds.owned" -}}
{{- $annotations := .object.metadata.annotations | default dict -}}
{{- and (eq (get $annotations "meta.helm.sh/release-name") .root.Release.Name)
        (eq (get $annotations "meta.helm.sh/release-namespace") .root.Release.Namespace) -}}
{{- end -}}

{{/* "true" where the schema that is there is newer than ours. */}}
{{- define "sealane-crds.newer" -}}
{{- $there := .there.metadata.labels | default dict -}}
{{- $ours := .ours.metadata.labels | default dict -}}
{{- $a := get $there "multicluster.x-k8s.io/release-version" | default "v0.0.0" -}}
{{- $b := get $ours "multicluster.x-k8s.io/release-version" | default "v0.0.0" -}}
{{- $revisionThere := get $there "multicluster.x-k8s.io/crd-schema-revision" | default "0" | int -}}
{{- $revisionOurs := get $ours "multicluster.x-k8s.io/crd-schema-revision" | default "0" | int -}}
{{- if eq $a $b -}}
{{- gt $revisionThere $revisionOurs -}}
{{- else -}}
{{- semverCompare (printf ">%s-0" (trimPrefix "v" $b)) (trimPrefix "v" $a) -}}
{{- end -}}
{{- end -}}
