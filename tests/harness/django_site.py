"""A Django site; its settings can be made once in a process."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import django
from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.urls import path

from harness.refusals import TAG
from tailbone.verify import require

if not settings.configured:
    settings.configure(
        ALLOWED_HOSTS=["a"],
        ROOT_URLCONF="harness.django_site",
        MIDDLEWARE=["tailbone.verify.django.TailboneMiddleware"],
        TAILBONE_VERIFIER=None,
        TAILBONE_REQUIRE=require(tags=TAG),
        INSTALLED_APPS=[],
        REST_FRAMEWORK={"UNAUTHENTICATED_USER": None},
        LOGGING_CONFIG=None,
    )
    django.setup()

from rest_framework.response import Response
from rest_framework.views import APIView

from tailbone.verify.rest_framework import TailboneAuthentication, permission

if TYPE_CHECKING:
    from rest_framework.request import Request


def plain(request: HttpRequest) -> HttpResponse:
    return HttpResponse(request.claims.sub)


class Whoami(APIView):  # type: ignore[misc]  # without types
    authentication_classes = (TailboneAuthentication,)
    permission_classes = (permission(require(tags=TAG)),)

    def get(self, request: Request) -> Any:
        return Response([request.user.pk, request.user.username, request.auth.tags])


urlpatterns = [path("", plain), path("api", Whoami.as_view())]
