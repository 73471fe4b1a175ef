{{/* Labels of everything in the chart; `component` is what it is part of. */}}
{{- define "kubepbx.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
{{ include "kubepbx.selector" . }}
{{- end }}

{{/* What selects it. */}}
{{- define "kubepbx.selector" -}}
app.kubernetes.io/name: kubepbx
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{- define "kubepbx.tag" -}}
{{ .Values.images.tag | default .Chart.AppVersion }}
{{- end }}

{{/* The image of a program of ours. */}}
{{- define "kubepbx.image" -}}
{{ .root.Values.images.registry }}/{{ .program }}:{{ include "kubepbx.tag" .root }}
{{- end }}

{{- define "kubepbx.pullSecrets" -}}
{{- with .Values.images.pullSecrets }}
imagePullSecrets:
{{- range . }}
- name: {{ . }}
{{- end }}
{{- end }}
{{- end }}

{{/* Where a pod may run, out of the values of a part. */}}
{{- define "kubepbx.placement" -}}
{{- with .nodeSelector }}
nodeSelector: {{ toYaml . | nindent 2 }}
{{- end }}
{{- with .tolerations }}
tolerations: {{ toYaml . | nindent 0 }}
{{- end }}
{{- with .affinity }}
affinity: {{ toYaml . | nindent 2 }}
{{- end }}
{{- with .priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- end }}

{{/* As Pod Security `restricted` wants a pod and its containers. */}}
{{- define "kubepbx.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
seccompProfile: {type: RuntimeDefault}
{{- end }}
{{- define "kubepbx.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{/* The Secret that holds the store's URL under the key url. */}}
{{- define "kubepbx.storeSecret" -}}
{{ .Values.store.existingSecret | default "kubepbx-store" }}
{{- end }}
{{- define "kubepbx.bundledRedis" -}}
{{- if not (or .Values.store.url .Values.store.existingSecret) }}true{{ end -}}
{{- end }}

{{/* Namespaces that the operator serves, separated by blanks; * for all. */}}
{{- define "kubepbx.namespaces" -}}
{{- .Values.operator.namespaces | default (list .Release.Namespace) | uniq | join " " -}}
{{- end }}

{{/* Of what is there only while something else is under way. */}}
{{- define "kubepbx.upgradeHook" -}}
helm.sh/hook: pre-upgrade
helm.sh/hook-weight: {{ . | quote }}
helm.sh/hook-delete-policy: before-hook-creation,hook-succeeded
{{- end }}
{{- define "kubepbx.testHook" -}}
helm.sh/hook: test
helm.sh/hook-weight: {{ . | quote }}
helm.sh/hook-delete-policy: before-hook-creation,hook-succeeded
{{- end }}

{{/* Where the default Pbx hears SIP over UDP, for a pod: HOST:PORT. */}}
{{- define "kubepbx.sip" -}}
{{- $port := 5060 }}
{{- range (.Values.pbx.spec.listeners | default list) }}
{{- if eq .transport "UDP" }}{{ $port = .port }}{{ end }}
{{- end }}
{{- $exposure := dig "services" "balancer" "exposure" "type" "HostNetwork" .Values.pbx.spec }}
{{- if eq $exposure "HostNetwork" -}}
$(NODE):{{ $port }}
{{- else -}}
{{ .Values.pbx.name }}-sip.{{ .Release.Namespace }}.svc:{{ $port }}
{{- end }}
{{- end }}
