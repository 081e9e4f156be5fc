{{/* The labels of an object; takes a dict: root, component. */}}
{{- define "sealane.labels" -}}
{{- $labels := dict
    "app.kubernetes.io/name" "sealane"
    "app.kubernetes.io/instance" .root.Release.Name
    "app.kubernetes.io/component" .component
    "app.kubernetes.io/version" .root.Chart.AppVersion
    "app.kubernetes.io/managed-by" .root.Release.Service
    "app.kubernetes.io/part-of" "sealane"
    "helm.sh/chart" (printf "%s-%s" .root.Chart.Name (.root.Chart.Version | replace "+" "_")) -}}
{{- toYaml (merge (dict) $labels .root.Values.commonLabels) -}}
{{- end -}}

{{/* The labels by which pods are found; they never change. Takes a dict: root, component. */}}
{{- define "sealane.selector" -}}
app.kubernetes.io/name: sealane
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{/* The image. */}}
{{- define "sealane.image" -}}
{{- $registry := .Values.global.imageRegistry | default .Values.image.registry -}}
{{- $path := ternary (printf "%s/%s" (trimSuffix "/" $registry) .Values.image.repository) .Values.image.repository (ne $registry "") -}}
{{- if .Values.image.digest -}}
{{- printf "%s@%s" $path .Values.image.digest -}}
{{- else -}}
{{- printf "%s:%s" $path (.Values.image.tag | default .Chart.AppVersion) -}}
{{- end -}}
{{- end -}}

{{/* What every pod is: nobody in particular, without rights on its node. 65532 is the image's user. */}}
{{- define "sealane.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
# Files on a volume stay their owner's alone: Sealane refuses keys that a group may read.
fsGroupChangePolicy: OnRootMismatch
seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{/* What every container is not allowed. */}}
{{- define "sealane.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end -}}

{{/* How replicas are spread, where the values do not say it; takes a dict: root, component, given. */}}
{{- define "sealane.spread" -}}
{{- if .given -}}
{{- toYaml .given -}}
{{- else -}}
{{- range tuple "kubernetes.io/hostname" "topology.kubernetes.io/zone" }}
- maxSkew: 1
  topologyKey: {{ . }}
  whenUnsatisfiable: ScheduleAnyway
  labelSelector:
    matchLabels: {{- include "sealane.selector" $ | nindent 6 }}
{{- end }}
{{- end -}}
{{- end -}}

{{/* How one server is dialled, as GRPC,STATUS; takes a dict: root, index. */}}
{{- define "sealane.addresses" -}}
{{- $servers := .root.Values.servers -}}
{{- if $servers.addresses -}}
{{- $own := index $servers.addresses .index -}}
{{- printf "%s,%s" $own.grpc $own.status -}}
{{- else -}}
{{- $name := printf "sealane-federation-%d.sealane-federation.%s.svc.%s" .index .root.Release.Namespace $servers.clusterDomain -}}
{{- printf "%s:7443,%s:7444" $name $name -}}
{{- end -}}
{{- end -}}

{{/* Refuses values that the schema can not judge. */}}
{{- define "sealane.check" -}}
{{- $count := int .Values.servers.replicas -}}
{{- $given := len .Values.servers.addresses -}}
{{- if and $given (ne $given $count) -}}
{{- fail (printf "servers.addresses has %d entries for %d servers: give one for each, or none" $given $count) -}}
{{- end -}}
{{- $ports := len .Values.external.nodePorts -}}
{{- if and $ports (ne $ports $count) -}}
{{- fail (printf "external.nodePorts has %d entries for %d servers: give one for each, or none" $ports $count) -}}
{{- end -}}
{{- if and .Values.external.enabled (not $given) -}}
{{- fail "external.enabled needs servers.addresses: what others are told to dial" -}}
{{- end -}}
{{- end -}}

{{/* The address families of a Service, by what its pods listen on: what only hears IPv4 must not be given an IPv6 address, at
which nobody answers. */}}
{{- define "sealane.families" -}}
{{- if hasPrefix "[" . -}}
ipFamilyPolicy: PreferDualStack
{{- else -}}
ipFamilyPolicy: SingleStack
ipFamilies: [IPv4]
{{- end -}}
{{- end -}}
