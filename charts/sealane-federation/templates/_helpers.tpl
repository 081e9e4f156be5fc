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

{{/* Whether a text is an IPv6 address: `true`, or nothing. */}}
{{- define "sealane.ipv6" -}}
{{- $group := "[0-9a-fA-F]{1,4}" -}}
{{- $some := printf "^(%s(:%s)*)?$" $group $group -}}
{{- $halves := splitList "::" . -}}
{{- $groups := len (regexFindAll $group . -1) -}}
{{- $enough := ternary (eq $groups 8) (and (eq (len $halves) 2) (le $groups 7)) (eq (len $halves) 1) -}}
{{- if and $enough (regexMatch $some (first $halves)) (regexMatch $some (last $halves)) -}}
true
{{- end -}}
{{- end -}}

{{/* Refuses an address in brackets that is none; takes a dict: value (its name), address. */}}
{{- define "sealane.checkAddress" -}}
{{- $inner := regexFind "^\\[.*\\]" .address | trimPrefix "[" | trimSuffix "]" -}}
{{- if and $inner (not (include "sealane.ipv6" $inner)) -}}
{{- fail (printf "%s: %q is no IPv6 address; one is written as in [fd00::1]" .value .address) -}}
{{- end -}}
{{- end -}}

{{/* Refuses an address of a server that can not be dialled; takes a dict: value (its name), address. */}}
{{- define "sealane.checkDialled" -}}
{{- include "sealane.checkAddress" . -}}
{{- if regexMatch "^(0\\.0\\.0\\.0|\\[[0:]+\\]):" .address -}}
{{- fail (printf "%s: %q is no address that others can dial; servers.listenAddress says where servers listen" .value .address) -}}
{{- end -}}
{{- end -}}

{{/* Refuses a life of certificates that servers do not grant. */}}
{{- define "sealane.checkLife" -}}
{{- $seconds := get (dict "s" 1 "m" 60 "h" 3600 "d" 86400) (regexFind "[smhd]$" .) -}}
{{- $life := mul (regexFind "^[0-9]+" . | int64) $seconds -}}
{{- if or (lt $life 2) (gt $life 604800) -}}
{{- fail (printf "servers.certificateTtl is %s: give 2s to 7d, as a whole number and s, m, h or d" .) -}}
{{- end -}}
{{- end -}}

{{/* Refuses values that the schema can not judge. */}}
{{- define "sealane.check" -}}
{{- include "sealane.checkAddress" (dict "value" "servers.listenAddress" "address" .Values.servers.listenAddress) -}}
{{- include "sealane.checkLife" .Values.servers.certificateTtl -}}
{{- $dialled := list -}}
{{- range .Values.servers.addresses -}}
{{- include "sealane.checkDialled" (dict "value" "servers.addresses" "address" .grpc) -}}
{{- include "sealane.checkDialled" (dict "value" "servers.addresses" "address" .status) -}}
{{- if or (eq .grpc .status) (has .grpc $dialled) -}}
{{- fail (printf "servers.addresses: %s is given twice: each server has an address of its own for gRPC, and the status API another" .grpc) -}}
{{- end -}}
{{- $dialled = append $dialled .grpc -}}
{{- end -}}
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
